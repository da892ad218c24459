// The few things of a browser that every panel needs. Text only ever becomes text: nothing here reads HTML.

export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

export function recall(name) {
  try {
    return localStorage.getItem(`flaxgen.${name}`);
  } catch {
    return null; // storage may be forbidden; the page works without
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(`flaxgen.${name}`, value);
  } catch {
    // as above
  }
}

// Whether the text reached the clipboard. Outside of secure contexts there is none, and the old way may still work.
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = make("textarea", { value: text, readOnly: true, className: "unseen" });
    const focused = document.activeElement;
    document.body.append(area);
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    focused?.focus();
    return done;
  }
}

export function download(name, url) {
  const link = make("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
}

export function saveCanvas(canvas, name) {
  canvas.toBlob((blob) => {
    const url = URL.createObjectURL(blob);
    download(name, url);
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }, "image/png");
}

export const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

export const randomSeed = () => crypto.getRandomValues(new Uint32Array(1))[0] % 1_000_000;
