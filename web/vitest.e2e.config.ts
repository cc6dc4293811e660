import { defineConfig } from 'vitest/config';

/** The app in Chromium: against a fake relay, and against the real program. */
export default defineConfig({
  test: {
    include: ['e2e/**/*.e2e.ts'],
    environment: 'node',
    // Machines that tests share are noisy.
    retry: 1,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    fileParallelism: false,
  },
});
