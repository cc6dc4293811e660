/** Small texts that the browser keeps beside the database, and whether it promises to keep that. */
export interface Shelf {
  get(name: string): string | null;
  /** Puts a text there; nothing takes it away. */
  put(name: string, text: string | null): void;
}

/** For this tab only; outlives a reload. */
export const tabShelf: Shelf = shelf(() => sessionStorage);
/** For all tabs; outlives the browser's end. */
export const browserShelf: Shelf = shelf(() => localStorage);

/** Asks the browser not to clear what this site keeps, and says whether it promised. */
export async function askToKeep(): Promise<boolean> {
  try {
    return (await navigator.storage.persisted()) || (await navigator.storage.persist());
  } catch {
    return false;
  }
}

/** What is on a shelf is a convenience: where the browser gives none, it is empty. */
function shelf(storage: () => Storage): Shelf {
  return {
    get: (name) => {
      try {
        return storage().getItem(`farhelm.${name}`);
      } catch {
        return null;
      }
    },
    put: (name, text) => {
      try {
        if (text === null) storage().removeItem(`farhelm.${name}`);
        else storage().setItem(`farhelm.${name}`, text);
      } catch {
        // Full or forbidden.
      }
    },
  };
}
