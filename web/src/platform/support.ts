/** Whether this browser has what the engine cannot do without. */
export async function hasKeys(): Promise<boolean> {
  try {
    await crypto.subtle.generateKey('Ed25519', false, ['sign', 'verify']);
    await crypto.subtle.generateKey('X25519', false, ['deriveBits']);
    return 'locks' in navigator && 'BroadcastChannel' in globalThis;
  } catch {
    return false;
  }
}
