// The key of the server: asked for when it is wanted, kept for the tab, or for the device if the user says so.
import { put } from "./words.js";

const NAME = "flaxgen.key";
const tab = () => sessionStorage;
const device = () => localStorage;
let held = stored(tab) ?? stored(device);
let asking = null;

function stored(storage) {
  try {
    return storage().getItem(NAME);
  } catch {
    return null; // storage may be forbidden; then the key lasts as long as the page
  }
}

function store(storage, key) {
  try {
    if (key) storage().setItem(NAME, key);
    else storage().removeItem(NAME);
  } catch {
    // as above
  }
}

export const bearer = () => (held ? { Authorization: `Bearer ${held}` } : {});

// Whether there is a key to try with now. `refused` is the header that was not good enough: where another request got a key meanwhile,
// nobody is asked again.
export function askKey(refused) {
  if (held && refused !== bearer().Authorization) return Promise.resolve(true);
  asking ??= dialog(Boolean(refused)).finally(() => (asking = null));
  return asking;
}

function dialog(wrong) {
  const box = document.getElementById("key");
  const form = box.querySelector("form");
  put(document.getElementById("key-why"), wrong ? "key.wrong" : "key.why");
  form.reset();
  form.elements.keep.checked = stored(device) !== null;
  return new Promise((resolve) => {
    let given = false;
    form.onsubmit = (event) => {
      event.preventDefault();
      // A header holds visible ASCII only; of anything else the browser would make an error.
      const key = form.elements.key.value.replace(/[^\x21-\x7e]/g, "");
      given = key !== "";
      if (given) {
        held = key;
        store(tab, key);
        store(device, form.elements.keep.checked ? key : null);
      }
      box.close();
    };
    form.querySelector("button[type=button]").onclick = () => box.close();
    box.onclose = () => {
      form.reset();
      resolve(given);
    };
    box.showModal();
  });
}

export function changeKey() {
  asking ??= dialog(false).finally(() => (asking = null));
  return asking;
}
