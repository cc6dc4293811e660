/** Times, sizes and names as people read them. */
import type { Author } from '../protocol/types';
import { strings } from '../strings';

const DAY_MILLIS = 24 * 60 * 60 * 1000;

/** The time of day, with the date when it is not today. */
export function formatTime(at: number, now: number): string {
  const time = new Date(at).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
  if (new Date(at).toDateString() === new Date(now).toDateString()) return time;
  return `${formatDate(at, now)} ${time}`;
}

export function formatDate(at: number, now: number): string {
  const isThisYear = new Date(at).getFullYear() === new Date(now).getFullYear();
  const year = isThisYear ? {} : { year: 'numeric' as const };
  return new Date(at).toLocaleDateString([], { day: 'numeric', month: 'short', ...year });
}

/** Short, for lists: minutes and hours of today, dates before. */
export function formatAgo(at: number, now: number): string {
  const millis = Math.max(0, now - at);
  if (millis < 60_000) return 'now';
  if (millis < 3_600_000) return `${Math.floor(millis / 60_000)} min`;
  if (millis < DAY_MILLIS) return `${Math.floor(millis / 3_600_000)} h`;
  return formatDate(at, now);
}

export function formatDuration(millis: number): string {
  const seconds = Math.round(millis / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
}

export function formatBytes(bytes: number): string {
  if (bytes < 1024) return `${bytes} B`;
  if (bytes < 1024 * 1024) return `${(bytes / 1024).toFixed(bytes < 10_240 ? 1 : 0)} KiB`;
  return `${(bytes / 1024 / 1024).toFixed(1)} MiB`;
}

export function formatCount(count: number): string {
  return count < 10_000 ? String(count) : `${Math.round(count / 1000)}k`;
}

/** The end of a path: its last two parts. */
export function shortPath(path: string): string {
  const parts = path.split('/').filter((part) => part !== '');
  return parts.length <= 2 ? path : `…/${parts.slice(-2).join('/')}`;
}

export function authorName(author: Author, me: string | null): string {
  switch (author.kind) {
    case 'device':
      return author.peer === me ? strings.author.self : author.name;
    case 'local':
      return strings.author.local;
    case 'agent':
      return strings.author.agent;
    case 'host':
      return strings.author.host;
    case 'rule':
      return strings.author.rule(author.name);
  }
}

/** What this browser would be called in a list of devices. */
export function deviceName(userAgent: string): string {
  const browsers: [RegExp, string][] = [
    [/Edg(A|iOS)?\//, 'Edge'],
    [/OPR\//, 'Opera'],
    [/Firefox\/|FxiOS\//, 'Firefox'],
    [/Chrom(e|ium)\/|CriOS\//, 'Chrome'],
    [/Safari\//, 'Safari'],
  ];
  const systems: [RegExp, string][] = [
    [/Android/, 'Android'],
    [/iPhone/, 'iPhone'],
    [/iPad/, 'iPad'],
    [/Mac OS X/, 'Mac'],
    [/Windows/, 'Windows'],
    [/CrOS/, 'ChromeOS'],
    [/Linux/, 'Linux'],
  ];
  const find = (table: [RegExp, string][]) => table.find(([pattern]) => pattern.test(userAgent))?.[1];
  return `${find(browsers) ?? 'Browser'} on ${find(systems) ?? 'this device'}`;
}
