// The table of examples: add and remove rows, paste cells of a spreadsheet, pick modules, drop a file.
(() => {
  "use strict";
  const form = document.getElementById("compose-form");
  const body = document.querySelector("#rows tbody");
  if (!form || !body) return;

  const renumber = () => {
    [...body.rows].forEach((row, index) => {
      const [source, target] = row.querySelectorAll("textarea");
      source.id = `example-${index + 1}`;
      source.setAttribute("aria-label", `Input of row ${index + 1}`);
      target.setAttribute("aria-label", `Output of row ${index + 1}`);
      row.querySelector("button").setAttribute("aria-label", `Remove row ${index + 1}`);
    });
  };

  const addRow = () => {
    const row = body.rows[body.rows.length - 1].cloneNode(true);
    for (const cell of row.querySelectorAll("textarea")) {
      cell.value = "";
      for (const name of ["aria-invalid", "aria-describedby"]) cell.removeAttribute(name);
    }
    body.append(row);
    renumber();
    return row;
  };

  const changed = () => form.dispatchEvent(new CustomEvent("rows-changed"));

  document.getElementById("add-row").addEventListener("click", () => addRow().querySelector("textarea").focus());

  body.addEventListener("click", (event) => {
    const button = event.target.closest("[data-remove-row]");
    if (!button) return;
    const row = button.closest("tr");
    const next = row.nextElementSibling || row.previousElementSibling;
    if (next) row.remove();
    else for (const cell of row.querySelectorAll("textarea")) cell.value = "";
    (next || row).querySelector("textarea").focus();
    renumber();
    changed();
  });

  // Typing in the last row opens the next one.
  body.addEventListener("input", (event) => {
    if (event.target.closest("tr") === body.rows[body.rows.length - 1]) addRow();
  });

  // A spreadsheet puts a cell that holds quotation marks into quotation marks, and doubles those inside.
  const unquoted = (cell) => (/^"([^"]|"")*""([^"]|"")*"$/.test(cell) ? cell.slice(1, -1).replaceAll('""', '"') : cell);
  const isObject = (line) => { try { return JSON.parse(line).constructor === Object; } catch { return false; } };

  // Cells copied from a spreadsheet come as lines of tab-separated text: spread them over the rows. Anything else that is
  // rows and no text of one cell goes where the site reads it (cells of several lines, headers, JSON) or says what is wrong.
  body.addEventListener("paste", (event) => {
    const text = event.clipboardData.getData("text/plain").replace(/\r\n?/g, "\n").replace(/\n+$/, "");
    const lines = text.split("\n");
    if (lines.every((line) => line.split("\t").length === 2)) {
      event.preventDefault();
      let row = event.target.closest("tr");
      for (const line of lines) {
        const cells = row.querySelectorAll("textarea");
        line.split("\t").forEach((value, index) => { cells[index].value = unquoted(value); });
        row = row.nextElementSibling || addRow();
      }
    } else if (text.includes("\t") || (lines.length > 1 && lines.every(isObject))) {
      event.preventDefault();
      const pasted = form.elements.examples_text;
      pasted.value += (pasted.value.trim() ? "\n" : "") + text;
      pasted.closest("details").open = true;
      pasted.focus();
    } else return;
    changed();
  });

  form.addEventListener("click", (event) => {
    const button = event.target.closest("[data-pick]");
    if (!button) return;
    const which = button.dataset.pick;
    for (const box of form.querySelectorAll("#candidates [name=pick]")) box.checked = which === "all" || (which === "better" && "better" in box.dataset);
  });

  // A module is pinned or left out, not both; picking them oneself shows the list.
  form.addEventListener("change", (event) => {
    const box = event.target;
    if (box.name === "choice" && box.value === "picked") form.querySelector(".picker").open = true;
    if (!box.checked || !["pin", "exclude"].includes(box.name)) return;
    const other = box.name === "pin" ? "exclude" : "pin";
    for (const one of box.closest("li").querySelectorAll(`[name=${other}]`)) one.checked = false;
  });

  // Enter in the filter filters; it must not send the form.
  form.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target.name === "filter") event.preventDefault();
  });

  // What is typed is kept in this tab until it is sent: a reload or a stray click loses nothing. It is for who typed it; what
  // was typed before signing in, for who signs in.
  const kept = "compose-draft";
  const reader = document.body.dataset.reader;
  const offer = document.getElementById("draft-offer");
  const texts = ["title", "examples_text", "test_text"];
  const rowsNow = () => [...body.rows].map((row) => [...row.querySelectorAll("textarea")].map((cell) => cell.value));
  const isEmpty = () => rowsNow().flat().concat(texts.map((name) => form.elements[name].value)).every((text) => !text.trim());
  const keep = (isSent = false) => {
    if (isEmpty()) return;
    const draft = { reader, page: location.href, isSent, rows: rowsNow(), texts: texts.map((name) => form.elements[name].value) };
    try { sessionStorage.setItem(kept, JSON.stringify(draft)); } catch { /* full or forbidden: then there is no draft */ }
  };
  const forget = () => { try { sessionStorage.removeItem(kept); } catch { /* forbidden */ } };
  const read = () => {
    try {
      const draft = JSON.parse(sessionStorage.getItem(kept));
      if (!draft || !draft.reader || draft.reader === reader) return draft;
    } catch { return null; }
    if (reader) forget();
    return null;
  };

  let waiting = 0;
  const keepSoon = () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => keep(), 400);
  };
  form.addEventListener("input", keepSoon);
  form.addEventListener("rows-changed", keepSoon);
  form.addEventListener("submit", () => {
    clearTimeout(waiting);
    keep(true);
  });
  const restore = ({ rows, texts: values }) => {
    rows.forEach((cells, index) => {
      const row = body.rows[index] || addRow();
      row.querySelectorAll("textarea").forEach((cell, column) => { cell.value = cells[column]; });
    });
    texts.forEach((name, index) => { form.elements[name].value = values[index]; });
    changed();
  };
  const draft = read();
  const isBack = performance.getEntriesByType("navigation").some(({ type }) => type === "back_forward");
  const isOfHere = draft && draft.page === location.href;
  // A form that is refused on a page of its own (too old, too large) leads back here from the address it was sent to.
  const isRefused = document.referrer !== "" && new URL(document.referrer).pathname === location.pathname;
  // The browser brings back what was typed, but for the rows that this script had added: on the way back, and Firefox at a
  // reload as well. It has done so by the time that the page shows.
  const isBegun = () => {
    const shown = rowsNow();
    const isOfDraft = draft.rows.every((cells, index) => !shown[index] || String(cells) === String(shown[index]))
      && texts.every((name, index) => form.elements[name].value === draft.texts[index]);
    return !isEmpty() && isOfDraft;
  };
  if (isOfHere && draft.isSent && isBack) {
    window.addEventListener("load", () => {
      restore(draft);
      clearTimeout(waiting);  // it is as it was sent until somebody types
    });
  } else if (draft && isEmpty() && (!draft.isSent || isRefused)) {
    offer.hidden = false;
  } else if (draft && draft.isSent) forget();
  if (isOfHere && !draft.isSent) {
    window.addEventListener("pageshow", () => {
      if (!isBegun()) return;
      offer.hidden = true;
      restore(draft);
    }, { once: true });
  }
  // It brings back the base model as well, but not what was fetched for it.
  const base = form.elements.base_model;
  window.addEventListener("pageshow", () => {
    if (base && !base.selectedOptions[0].defaultSelected) base.dispatchEvent(new Event("change", { bubbles: true }));
  }, { once: true });
  offer.addEventListener("click", (event) => {
    const wish = event.target.dataset.draft;
    if (!wish) return;
    offer.hidden = true;
    if (wish === "forget") return forget();
    restore(read());
    body.querySelector("textarea").focus();
  });

  // One click, one composition; coming back to the page makes the buttons work again.
  let isSent = false;
  form.addEventListener("submit", (event) => {
    if (isSent) event.preventDefault();
    isSent = true;
    form.setAttribute("aria-busy", "true");
  });
  window.addEventListener("pageshow", () => {
    isSent = false;
    form.removeAttribute("aria-busy");
  });

  const file = document.getElementById("examples-file");
  const block = file.closest("section");
  for (const name of ["dragover", "dragleave", "drop"]) {
    block.addEventListener(name, (event) => {
      if (!event.dataTransfer.types.includes("Files")) return;
      event.preventDefault();
      block.classList.toggle("is-dragged", name === "dragover");
      if (name !== "drop") return;
      file.files = event.dataTransfer.files;
      file.closest("details").open = true;
      changed();
    });
  }
})();
