/** Which screen the address names. A session's address is never a credential. */
export type Route =
  | { readonly screen: 'sessions' }
  | { readonly screen: 'session'; readonly host: string; readonly session: string }
  | { readonly screen: 'approvals' }
  | { readonly screen: 'devices' }
  | { readonly screen: 'pair'; readonly link: string | null };

const PAIR = '#pair=';

export function parseRoute(hash: string): Route {
  if (hash.startsWith(PAIR)) return { screen: 'pair', link: hash };
  const [screen, host, session] = hash.replace(/^#\/?/, '').split('/');
  if (screen === 's' && host?.startsWith('peer_') && session?.startsWith('ses_')) {
    return { screen: 'session', host, session };
  }
  if (screen === 'approvals' || screen === 'devices') return { screen };
  if (screen === 'pair') return { screen: 'pair', link: null };
  return { screen: 'sessions' };
}

export function hrefOf(route: Route): string {
  switch (route.screen) {
    case 'session':
      return `#/s/${route.host}/${route.session}`;
    case 'sessions':
      return '#/';
    case 'approvals':
    case 'devices':
    case 'pair':
      return `#/${route.screen}`;
  }
}
