/** @type {import('@sveltejs/vite-plugin-svelte').SvelteConfig} */
export default {
  // Templates are built by createElement: nothing of ours ever assigns innerHTML.
  compilerOptions: { runes: true, fragments: 'tree' },
};
