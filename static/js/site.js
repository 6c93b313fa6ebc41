// What every page shares: keys (search, lists, help), copy buttons, menus that close, and a word when the site is away.
(() => {
  "use strict";
  const said = document.getElementById("said");

  const say = (text) => {
    said.textContent = "";
    requestAnimationFrame(() => { said.textContent = text; });
  };

  const copyText = async (text) => {
    if (navigator.clipboard && window.isSecureContext) return navigator.clipboard.writeText(text);
    // Over plain http the clipboard API is missing; the old way still works.
    const area = document.createElement("textarea");
    area.value = text;
    area.className = "visually-hidden";
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    if (!copied) throw new Error("not copied");
  };

  document.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-copy]");
    if (button) {
      const text = button.dataset.copyAbsolute === undefined ? button.dataset.copy : location.origin + button.dataset.copy;
      try {
        await copyText(text);
        button.classList.add("done");
        say("Copied");
        setTimeout(() => button.classList.remove("done"), 1500);
      } catch {
        say("Copying did not work; select the text instead");
      }
    }
    for (const menu of document.querySelectorAll("details.menu[open]")) {
      if (!menu.contains(event.target)) menu.open = false;
    }
  });

  // A menu closes as well when the focus goes on, which would be below it.
  document.addEventListener("focusin", ({ target }) => {
    for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(target)) menu.open = false;
  });

  // What is drawn is not scrolled to by Firefox when it gets the focus.
  document.addEventListener("focusin", ({ target }) => {
    if (!(target instanceof SVGElement)) return;
    const { top, bottom } = target.getBoundingClientRect();
    if (top < 0 || bottom > innerHeight) window.scrollBy(0, (top + bottom - innerHeight) / 2);
  });

  // Tabs that are wider than a phone begin at the one that is open.
  for (const open of document.querySelectorAll(".tabs [aria-current], .side-nav [aria-current]")) {
    const bar = open.parentElement;
    bar.scrollLeft = open.offsetLeft - bar.offsetLeft - (bar.clientWidth - open.offsetWidth) / 2;
  }

  const moveInList = (step) => {
    const links = [...document.querySelectorAll(".row-title a:first-of-type")];
    if (!links.length) return;
    const now = links.indexOf(document.activeElement);
    const next = links[Math.min(links.length - 1, Math.max(0, now + step))];
    next.focus();
    next.scrollIntoView({ block: "nearest" });
  };

  const keys = document.getElementById("keys");
  const showKeys = () => (keys.open ? keys.close() : keys.showModal());
  document.querySelector("[data-keys]").addEventListener("click", showKeys);
  keys.addEventListener("click", (event) => { if (event.target === keys) keys.close(); });

  // Who speaks to the machine, or types by mistake, can do without single keys (WCAG 2.1.4).
  const KEYS_OFF = "keys-off";
  const areKeysOff = () => { try { return localStorage.getItem(KEYS_OFF) !== null; } catch { return false; } };
  const switchOn = document.getElementById("keys-on");
  const showWhetherKeysAreOn = () => {
    switchOn.checked = !areKeysOff();
    document.querySelector(".search kbd").hidden = areKeysOff();
  };
  showWhetherKeysAreOn();
  switchOn.addEventListener("change", () => {
    try {
      if (switchOn.checked) localStorage.removeItem(KEYS_OFF); else localStorage.setItem(KEYS_OFF, "1");
    } catch { /* forbidden: then they stay on */ }
    showWhetherKeysAreOn();
  });

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      for (const menu of document.querySelectorAll("details.menu[open]")) {
        menu.open = false;
        menu.querySelector("summary").focus();
      }
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || areKeysOff()) return;
    if (event.target.closest("input:not([type=checkbox], [type=radio]), textarea, select, [contenteditable]")) return;
    if (event.key === "/") {
      event.preventDefault();
      document.getElementById("site-search").select();
    } else if (event.key === "j") {
      moveInList(1);
    } else if (event.key === "k") {
      moveInList(-1);
    } else if (event.key === "c") {
      location.assign("/compose");
    } else if (event.key === "?") {
      showKeys();
    }
  });

  // A part of a page that could not be fetched: its last state stays, and why is said, in the site's own words if it has some.
  const trouble = document.getElementById("trouble");
  const tell = ({ detail: { elt, xhr } }) => {
    const isOurs = (xhr.getResponseHeader("Content-Type") || "").startsWith("text/plain");
    const answered = xhr.status ? `The site answered ${xhr.status}.` : "The site does not answer.";
    const next = elt.matches("[hx-trigger*=every]") ? "It is asked again by itself." : "What you typed is still here; try again.";
    const words = xhr.status && isOurs ? xhr.responseText : `${answered} ${next}`;
    if (trouble.hidden || trouble.textContent !== words) trouble.textContent = words;
    trouble.hidden = false;
  };
  document.addEventListener("htmx:sendError", tell);
  document.addEventListener("htmx:timeout", tell);
  document.addEventListener("htmx:responseError", tell);
  document.addEventListener("htmx:afterOnLoad", ({ detail }) => { if (detail.successful) trouble.hidden = true; });

  // Parts that are fetched again and again say what is new of them: screen readers hear that, and not every fetch.
  const told = new Map([...document.querySelectorAll("[data-say]")].map((at) => [at.id, at.dataset.say]));
  document.addEventListener("htmx:afterSwap", () => {
    for (const { id, dataset } of document.querySelectorAll("[data-say]")) {
      if (dataset.say && told.get(id) !== dataset.say) said.textContent = dataset.say;
      told.set(id, dataset.say);
    }
  });

  // Whoever signed in meanwhile, in another tab, has another token for forms: what goes out carries that of now, and whose
  // page it is on, which counts for nobody else.
  const token = () => (document.cookie.match(/(?:^|; )csrftoken=(\w+)/) || [])[1];
  const reader = document.body.dataset.reader;
  document.addEventListener("formdata", ({ formData }) => {
    if (!formData.has("csrfmiddlewaretoken")) return;
    if (token()) formData.set("csrfmiddlewaretoken", token());
    formData.set("typed_by", reader || "");
  });

  // What has to be filled in is wrong for Firefox while it is empty, and screen readers said so of forms that nobody had
  // touched. It is wrong once the browser has refused to send it.
  const tellWhetherWrong = ({ target }) => target.setAttribute("aria-invalid", String(!target.validity.valid));
  for (const input of document.querySelectorAll("[required]:not([aria-invalid=true])")) {
    input.setAttribute("aria-invalid", "false");
    input.addEventListener("invalid", tellWhetherWrong);
    input.addEventListener("input", tellWhetherWrong);
  }

  // A form that asks first; without scripts it goes through a page of its own. The second of a double click sends nothing:
  // its answer, that there is nothing left to do, would be the one that is shown.
  const DOUBLE_CLICK_MS = 1000;
  const sentAt = new WeakMap();
  document.addEventListener("submit", (event) => {
    const form = event.target;
    const question = form.dataset.confirm;
    if (question && !window.confirm(question)) event.preventDefault();
    // By its attribute: a field called "method" would hide the property.
    if (event.defaultPrevented || form.getAttribute("method") !== "post") return;
    if (event.timeStamp - sentAt.get(form) < DOUBLE_CLICK_MS) event.preventDefault();
    else sentAt.set(form, event.timeStamp);
    if (event.defaultPrevented) return;
    if (form.getAttribute("action") === "/accounts/logout/") forgetAll(); else keep(form);
  });

  // What was typed into a form waits in this tab until its answer: whoever had to sign in first, or was refused on a page
  // of its own (too old, too large), finds it there again, if it is the same person. Nothing that is secret or a file; the
  // compose form has its draft.
  const KEPT = "typed";
  const isOnTheWay = location.pathname.startsWith("/accounts/") || document.querySelector("[data-refused]") !== null;
  const inputsOf = (form) => [...form.elements].filter((at) => at.name && !["hidden", "password", "file", "submit", "button", "fieldset"].includes(at.type));
  function keep(form) {
    if (isOnTheWay || !form.closest("main") || form.id === "compose-form") return;
    const typed = inputsOf(form).map(({ name, type, value, checked }) => ({ name, type, value, checked }));
    const kept = { reader, page: location.pathname, action: form.getAttribute("action"), typed };
    try { sessionStorage.setItem(KEPT, JSON.stringify(kept)); } catch { /* full or forbidden: then nothing is kept */ }
  }
  function forgetAll() {
    try { sessionStorage.clear(); } catch { /* forbidden: then nothing was kept */ }
  }
  const bringBack = () => {
    const kept = JSON.parse(sessionStorage.getItem(KEPT));
    if (!kept) return;
    if (isOnTheWay) return sessionStorage.setItem(KEPT, JSON.stringify({ ...kept, isLost: true }));
    sessionStorage.removeItem(KEPT);
    if (kept.reader && kept.reader !== reader) return;
    const form = [...document.querySelectorAll("main form")].find((one) => one.getAttribute("action") === kept.action);
    if (!kept.isLost || kept.page !== location.pathname || !form || !kept.typed.length) return;
    const inputs = inputsOf(form);
    for (const { name, type, value, checked } of kept.typed) {
      const isChoice = ["checkbox", "radio"].includes(type);
      const at = inputs.findIndex((one) => one.name === name && (!isChoice || one.value === value));
      if (at < 0) continue;
      const [input] = inputs.splice(at, 1);
      if (isChoice) input.checked = checked; else input.value = value;
    }
    const word = document.createElement("p");
    word.className = "notice";
    word.setAttribute("role", "status");
    word.textContent = "What you typed is here again. It was not sent.";
    form.prepend(word);
    form.scrollIntoView({ block: "nearest" });
  };
  try { bringBack(); } catch { /* forbidden, or not ours */ }

  // What the browser keeps of a page in its history, and puts back into its forms, is for who was there then.
  // A page about a fault of ours asks nobody who is there.
  if (reader === undefined) return;
  const HERE = "reader";
  try { sessionStorage.setItem(HERE, reader); } catch { /* forbidden */ }
  const isHere = () => { try { return [null, reader].includes(sessionStorage.getItem(HERE)); } catch { return true; } };
  const seenBy = history.state && history.state.reader;
  history.replaceState({ ...history.state, reader }, "");
  window.addEventListener("pageshow", ({ persisted }) => {
    if (persisted && !isHere()) location.reload();
    // Not before: it is now that the browser has put back what was typed.
    else if (seenBy && seenBy !== reader) for (const form of document.forms) form.reset();
  });
})();
