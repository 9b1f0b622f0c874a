/** URLs as they may be shown: without user name, password, query and fragment, each of which may hold a secret. */

/** `undefined` where the text is not an absolute http or https URL. */
export const showUrl = (text: string): string | undefined => {
  const url = URL.parse(text)
  return url !== null && /^https?:/.test(url.href) ? url.origin + url.pathname : undefined
}

/** The same for what may be no URL at all: everything up to the last @ could be a password, what follows a ; as well. */
export const showText = (text: string): string => showUrl(text) ?? text.replace(/^.*@|[?#;\s].*$/gs, "").slice(0, 200)
