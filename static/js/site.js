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

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      for (const menu of document.querySelectorAll("details.menu[open]")) {
        menu.open = false;
        menu.querySelector("summary").focus();
      }
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey) return;
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

  // A part of a page that could not be fetched: its last state stays, and that is said. Polling pages say it themselves.
  const trouble = document.getElementById("trouble");
  const tell = (is) => { if (trouble && !document.querySelector(".offline")) trouble.hidden = !is; };
  document.addEventListener("htmx:sendError", () => tell(true));
  document.addEventListener("htmx:responseError", () => tell(true));
  document.addEventListener("htmx:afterOnLoad", () => tell(false));

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
  });
})();
