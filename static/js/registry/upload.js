// The upload page: reads what is needed from the files in the browser, asks the server what it would say, sends
// the files with progress. Without this script the form works as a plain one.
(() => {
  "use strict";
  const form = document.getElementById("upload");
  const drop = document.getElementById("drop");
  const chosen = document.getElementById("chosen");
  const publish = document.getElementById("publish");
  const progress = document.getElementById("progress");
  const problemsBox = document.getElementById("problems");
  const CONFIG = "adapter_config.json", WEIGHTS = "adapter_model.safetensors", LEGACY = "adapter_model.bin", CARD = "README.md";
  const keptSuffixes = new Set(form.dataset.keptSuffixes.split(" "));
  const keptNames = new Set(form.dataset.keptNames.split(" "));
  const maxHeader = 16 * 1024 * 1024;
  let files = [];       // [{path, file, why}]: `why` says why it is left out, empty if it is sent
  let sending = null;   // the request while it runs
  let checkNumber = 0;  // answers to older checks are dropped

  // --- words and nodes --------------------------------------------------------------------------------
  const node = (name, attributes = {}, ...children) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  };
  const size = (bytes) => {
    const units = ["bytes", "kB", "MB", "GB", "TB"];
    let value = bytes, unit = 0;
    while (value >= 999.5 && unit < 4) { value /= 1000; unit += 1; }
    return `${value.toFixed(unit === 0 || value >= 99.95 ? 0 : 1).replace(/\.0$/, "")}\u202f${unit === 0 && bytes === 1 ? "byte" : units[unit]}`;
  };
  const field = (name) => form.elements[name];
  const typed = new Set();  // fields that a person touched are never filled in for them
  // Nor those that the page came with, such as the name of the module that is to have a new version.
  const takeForTyped = () => {
    for (const input of form.querySelectorAll("input[type=text], select, textarea")) if (input.value) typed.add(input.name);
  };
  takeForTyped();
  form.addEventListener("input", (event) => typed.add(event.target.name));
  const prefill = (name, value) => {
    const input = field(name);
    if (!input || !value || typed.has(name)) return;
    if (input.tagName === "SELECT" && ![...input.options].some((option) => option.value === value)) {
      if (name !== "license") return;
      input.value = "other";
      field("license_other").value = value;
      return;
    }
    input.value = value;
  };

  // --- choosing -----------------------------------------------------------------------------------------
  const readEntry = (entry, prefix) => new Promise((resolve) => {
    if (entry.isFile) {
      entry.file((file) => resolve([{ path: prefix + entry.name, file }]), () => resolve([]));
      return;
    }
    const reader = entry.createReader();
    const all = [];
    const more = () => reader.readEntries(async (entries) => {
      if (!entries.length) {
        resolve((await Promise.all(all.map((child) => readEntry(child, `${prefix}${entry.name}/`)))).flat());
        return;
      }
      all.push(...entries);
      more();
    }, () => resolve([]));
    more();
  });

  const dropped = async (transfer) => {
    const entries = [...transfer.items].map((item) => item.webkitGetAsEntry && item.webkitGetAsEntry()).filter(Boolean);
    if (!entries.length) return [...transfer.files].map((file) => ({ path: file.name, file }));
    return (await Promise.all(entries.map((entry) => readEntry(entry, "")))).flat();
  };

  // The adapter may be the folder itself, or the only folder below with a config in it.
  const findRoot = (found) => {
    const homes = found.filter(({ path }) => path === CONFIG || path.endsWith(`/${CONFIG}`)).map(({ path }) => path.slice(0, -CONFIG.length));
    if (homes.length) return homes.sort((a, b) => a.split("/").length - b.split("/").length || a.localeCompare(b))[0];
    const first = found[0].path.split("/");
    return first.length > 1 && found.every(({ path }) => path.startsWith(`${first[0]}/`)) ? `${first[0]}/` : "";
  };

  const whyLeftOut = (path) => {
    const name = path.split("/").pop();
    if ([CONFIG, WEIGHTS, LEGACY, CARD].includes(path)) return "";
    if (name.startsWith(".")) return "left out: hidden file";
    const dot = name.lastIndexOf(".");
    const suffix = dot > 0 ? name.slice(dot).toLowerCase() : "";
    if (keptSuffixes.has(suffix) || keptNames.has(name.toLowerCase().split(".")[0])) return "";
    return "left out: not part of an adapter";
  };

  const choose = (found) => {
    found = found.filter(({ file }) => file);
    if (!found.length) return;
    const root = findRoot(found);
    files = found
      .map(({ path, file }) => path.startsWith(root)
        ? { path: path.slice(root.length), file, why: whyLeftOut(path.slice(root.length)) }
        : { path, file, why: "left out: outside the adapter’s folder" })
      .sort((a, b) => Number(!!a.why) - Number(!!b.why) || a.path.localeCompare(b.path));
    if (root && !typed.has("name")) prefill("name", asName(root.replace(/\/$/, "").split("/").pop()));
    showFiles();
    showProblems([]);
    check();
  };

  const asName = (text) => text.replace(/[^A-Za-z0-9._-]+/g, "-").replace(/-{2,}/g, "-").replace(/\.{2,}/g, ".").replace(/^[-.]+|[-.]+$/g, "").slice(0, 96);
  const get = (path) => (files.find((one) => one.path === path && !one.why) || {}).file;

  // Why publishing would refuse a kept file for its name; the server has the same rules.
  const whyRefused = (path) => {
    if (/[^ -~]/.test(path)) return "Use plain ASCII letters, digits and signs in file names.";
    if (path.length > 255) return "A file name may have 255 bytes. Shorten it.";
    if (path.split("/").some((part) => part.toLowerCase() === ".git")) return "Leave git’s own files out.";
    const folded = (text) => text.toLowerCase().split("/").map((part) => part.replace(/[. ]+$/, "")).join("/");
    const twin = files.find((one) => !one.why && one.path !== path && folded(one.path) === folded(path));
    return twin ? `${twin.path} is the same name on many systems. Keep one of the two.` : "";
  };
  const refused = () => files.filter(({ path, why }) => !why && whyRefused(path))
    .map(({ path }) => `“${path}” cannot be published under this name. ${whyRefused(path)}`);

  const what = (path) => ({
    [CONFIG]: "read: how the weights are used",
    [WEIGHTS]: "checked and kept",
    [LEGACY]: "converted to safetensors",
    [CARD]: "becomes the card",
  })[path] || "kept beside the adapter";

  const showFiles = () => {
    const rows = files.slice(0, 40).map(({ path, file, why }) => node("tr", why ? { class: "out" } : {},
      node("td", {}, path), node("td", { class: "num" }, size(file.size)), node("td", {}, why || (whyRefused(path) ? `refused for its name: ${whyRefused(path)}` : what(path)))));
    document.getElementById("chosen-files").replaceChildren(...rows);
    const kept = files.filter(({ why }) => !why);
    const total = kept.reduce((sum, { file }) => sum + file.size, 0);
    const hidden = files.length - rows.length;
    document.getElementById("chosen-sum").textContent =
      `${kept.length} ${kept.length === 1 ? "file" : "files"}, ${size(total)} to send`
      + (files.length > kept.length ? `, ${files.length - kept.length} left out` : "") + (hidden > 0 ? ` (${hidden} not shown)` : "");
    chosen.hidden = files.length === 0;
    drop.hidden = files.length > 0;
    document.getElementById("card-field").hidden = !!get(CARD);
  };

  const pickers = [document.getElementById("pick-files"), document.getElementById("pick-folder")];
  document.getElementById("forget").addEventListener("click", () => {
    files = [];
    checkNumber += 1;
    for (const picker of pickers) picker.value = "";
    showFiles();
    showProblems([]);
    showFacts(null);
    pickers[0].focus();
  });
  const chooseFrom = ({ files: picked }) => choose([...picked].map((file) => ({ path: file.webkitRelativePath || file.name, file })));
  for (const picker of pickers) picker.addEventListener("change", () => chooseFrom(picker));
  // What had been picked, browsers bring back on the way here again, and Firefox at a reload as well.
  window.addEventListener("pageshow", () => {
    if (files.length) return;
    takeForTyped();
    pickers.forEach(chooseFrom);
  });
  for (const kind of ["dragenter", "dragover"]) {
    form.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  for (const kind of ["dragleave", "drop"]) form.addEventListener(kind, () => drop.classList.remove("over"));
  form.addEventListener("drop", async (event) => {
    event.preventDefault();
    if (!sending) choose(await dropped(event.dataTransfer));
  });

  // --- reading in the browser ------------------------------------------------------------------------------
  const readConfig = async () => {
    const file = get(CONFIG);
    if (!file || file.size > 65536) return null;
    try { return JSON.parse(await file.text()); } catch { return null; }
  };

  // The first bytes of a safetensors file: 8 that say how long the header is, then the header.
  const headerOf = async (file) => {
    if (!file || file.size < 10) return null;
    const length = Number(new DataView(await file.slice(0, 8).arrayBuffer()).getBigUint64(0, true));
    if (length > maxHeader || length + 8 > file.size) return null;
    const blob = file.slice(0, 8 + length);
    try {
      return { blob, tensors: JSON.parse(await file.slice(8, 8 + length).text()) };
    } catch {
      return { blob, tensors: null };
    }
  };

  const localFacts = (config, tensors) => {
    const facts = {};
    if (config) {
      facts.rank = config.r;
      facts.alpha = config.lora_alpha;
      facts.targets = Array.isArray(config.target_modules) ? config.target_modules : [config.target_modules].filter(Boolean);
    }
    if (tensors) {
      const all = Object.entries(tensors).filter(([name]) => name !== "__metadata__").map(([, tensor]) => tensor);
      facts.tensors = all.length;
      facts.dtypes = [...new Set(all.map(({ dtype }) => dtype))];
      facts.parameters = all.reduce((sum, { shape }) => sum + (shape || []).reduce((product, side) => product * side, 1), 0);
    }
    return facts;
  };

  const isPath = (label) => /^[/.~]|\\|\/$|^[A-Za-z]:|\/.*\//.test(label);

  const showFacts = (facts) => {
    const list = document.getElementById("facts-list");
    document.getElementById("facts-empty").hidden = !!facts;
    list.hidden = !facts;
    if (!facts) {
      document.getElementById("verdict").replaceChildren();
      return;
    }
    const rows = [
      ["rank", facts.rank], ["alpha", facts.alpha], ["targets", (facts.targets || []).join(", ")],
      ["tensors", facts.tensors], ["parameters", facts.parameters && facts.parameters.toLocaleString("en-GB")],
      ["dtype", (facts.dtypes || []).join(", ")],
    ].filter(([, value]) => value !== undefined && value !== null && value !== "");
    list.replaceChildren(...rows.flatMap(([name, value]) => [node("dt", {}, name), node("dd", {}, String(value))]));
  };

  // --- asking the server ---------------------------------------------------------------------------------------
  const check = async () => {
    const number = ++checkNumber;
    const config = await readConfig();
    const weights = get(WEIGHTS);
    const header = await headerOf(weights);
    if (number !== checkNumber) return;
    showFacts(localFacts(config, header && header.tensors));
    const label = config && typeof config.base_model_name_or_path === "string" ? config.base_model_name_or_path.trim() : "";
    if (label && !isPath(label)) prefill("base_model", label);
    const verdict = document.getElementById("verdict");
    verdict.replaceChildren(node("p", { class: "fine" }, "Checking …"));

    const body = new FormData();
    // As it would go out with the form now; the field keeps the one that the page came with.
    body.set("csrfmiddlewaretoken", new FormData(form).get("csrfmiddlewaretoken"));
    body.set("base_model", field("base_model").value);
    if (get(CONFIG) && get(CONFIG).size < 1e6) body.set("config", get(CONFIG), CONFIG);
    if (get(CARD) && get(CARD).size < 1e6) body.set("card", get(CARD), CARD);
    const later = (!weights && get(LEGACY)) || (weights && weights.size > Number(form.dataset.maxEarlyBytes));
    if (later) {
      body.set("weights", "later");
    } else if (weights) {
      body.set("weights_size", weights.size);
      body.set("header", header ? header.blob : weights.slice(0, 1024), WEIGHTS);
    }
    try {
      const answer = await fetch(form.dataset.check, { method: "POST", body, headers: { Accept: "application/json" } });
      if (!answer.ok) throw new Error(String(answer.status));
      const report = await answer.json();
      if (number === checkNumber) showReport(report, later);
    } catch {
      if (number === checkNumber) verdict.replaceChildren(node("p", { class: "fine" }, "The early check did not work. Everything is checked again when you publish."));
    }
  };

  const notice = (kind, title, sentences) => {
    const box = node("div", { class: `notice ${kind}` }, node("b", {}, title));
    if (sentences.length === 1) box.append(node("p", {}, sentences[0]));
    if (sentences.length > 1) box.append(node("ul", {}, ...sentences.map((text) => node("li", {}, text))));
    return box;
  };

  const showReport = (report, later) => {
    const parts = [];
    const problems = (report.problems || []).map(({ message }) => message);
    const defaults = report.defaults || {};
    for (const name of ["description", "license", "task"]) prefill(name, defaults[name]);
    if (report.base_model && !typed.has("base_model")) field("base_model").value = report.base_model;
    problems.push(...refused());
    if (problems.length) {
      const count = refused().length + (report.problems || []).reduce((sum, { times }) => sum + times, 0);
      parts.push(notice("error", count === 1 ? "One thing to put right" : `${count.toLocaleString("en-GB")} things to put right`, problems));
    } else if (later) {
      parts.push(notice("", "The config is fine", ["The weights are checked once they are here."]));
    } else if (report.is_composable) {
      const others = report.composes_with;
      parts.push(notice("good", "Can be composed", [`Fits ${report.base_model}${others ? ` and composes with ${others.toLocaleString("en-GB")} ${others === 1 ? "other" : "others"}` : ""}.`]));
    } else if (report.base_fit === "unchecked" && !report.base_model) {
      parts.push(notice("warn", "Unchecked", [report.base_model_label && !isPath(report.base_model_label)
        ? `${report.base_model_label} is not known here yet. You can publish; once somebody adds that base model, the shapes are checked and it can be composed.`
        : "Say which base model it was trained on, so that its shapes can be checked."]));
    } else {
      parts.push(notice("warn", "Cannot be composed", [report.composable_reason, "You can publish it all the same."].filter(Boolean)));
    }
    const warnings = (report.warnings || []).filter((text) => !(field("base_model").value && /Say which/.test(text)));
    if (warnings.length) parts.push(notice("warn", "Good to know", warnings));
    document.getElementById("verdict").replaceChildren(...parts);
  };
  field("base_model").addEventListener("change", () => { if (files.length) check(); });

  // --- sending ------------------------------------------------------------------------------------------------------
  // As the server says it without scripts: the title first, then a list with the focus, and each mistake at its input.
  const title = document.title.replace(/^Error: /, "");
  const showProblems = (sentences, fields = {}) => {
    problemsBox.replaceChildren();
    document.title = title;
    for (const old of form.querySelectorAll(".errorlist")) old.remove();
    for (const old of form.querySelectorAll("[aria-invalid=true]")) {
      old.setAttribute("aria-invalid", "false");
      old.setAttribute("aria-describedby", (old.getAttribute("aria-describedby") || "").replace(/ ?\S+_error/, ""));
    }
    const lines = [...sentences];
    for (const [name, errors] of Object.entries(fields)) {
      const input = field(name);
      if (!input || !input.closest) { lines.push(...errors); continue; }
      const box = input.closest(".field");
      const id = `${input.id}_error`;
      input.setAttribute("aria-invalid", "true");
      input.setAttribute("aria-describedby", `${input.getAttribute("aria-describedby") || ""} ${id}`.trim());
      box.append(node("ul", { class: "errorlist", id }, ...errors.map((text) => node("li", {}, text))));
      lines.push(node("a", { href: `#${input.id}` }, `${box.querySelector("label").firstChild.data.trim()}: ${errors[0]}`));
    }
    if (!lines.length) return;
    const box = notice("error", "Nothing was published.", lines);
    box.tabIndex = -1;
    problemsBox.append(box);
    document.title = `Error: ${title}`;
    box.focus({ preventScroll: true });
    box.scrollIntoView({ block: "center" });
  };

  const setSending = (request) => {
    sending = request;
    publish.hidden = !!request;
    progress.hidden = !request;
  };

  const showProgress = (words, share) => {
    document.getElementById("progress-words").textContent = words;
    document.getElementById("progress-number").textContent = share === null ? "" : `${Math.floor(share * 100)}\u202f%`;
    const bar = document.getElementById("progress-bar");
    if (share === null) bar.removeAttribute("value"); else bar.value = share;
  };

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (sending) return;
    const kept = files.filter(({ why }) => !why);
    const total = kept.reduce((sum, { file }) => sum + file.size, 0);
    if (!kept.length) return showProblems(["Choose the files of the adapter first: adapter_config.json and adapter_model.safetensors."]);
    if (total > Number(form.dataset.maxBytes)) return showProblems([`The files have ${size(total)}; an adapter may have ${size(Number(form.dataset.maxBytes))}.`]);
    if (kept.length > Number(form.dataset.maxFiles)) return showProblems([`There are ${kept.length} files; an adapter may have ${form.dataset.maxFiles}. Choose only the adapter’s own.`]);
    if (refused().length) return showProblems(refused());
    showProblems([]);

    const body = new FormData(form);
    body.delete("files");
    for (const { path, file } of kept) {
      body.append("paths", path);
      body.append("files", file, path.split("/").pop());
    }
    const request = new XMLHttpRequest();
    request.open("POST", form.getAttribute("action"));
    request.setRequestHeader("Accept", "application/json");
    request.responseType = "json";
    request.upload.addEventListener("progress", ({ loaded, total: all }) => {
      if (loaded < all) showProgress("Uploading", loaded / all); else showProgress("Checking the weights", null);
    });
    request.addEventListener("load", () => {
      const answer = request.response || {};
      if (request.status === 201) {
        window.removeEventListener("beforeunload", ask);
        location.assign(answer.url);
        return;
      }
      setSending(null);
      const sentences = (answer.problems || []).map(({ message }) => message);
      if (request.status === 401) sentences.push("You are signed out. Sign in in another tab, then press Publish again: what you typed and chose is still here.");
      const fields = answer.fields || {};
      if (!sentences.length && !Object.keys(fields).length) {
        sentences.push(request.status === 413 ? "The files are larger than this server takes." : `The server answered ${request.status}. What you typed is still here; try again.`);
      }
      if ((answer.problems || []).length) document.getElementById("verdict").replaceChildren();
      showProblems(sentences, fields);
    });
    const failed = (words) => () => { setSending(null); showProblems([words]); };
    request.addEventListener("error", failed("The connection broke. What you typed and chose is still here; try again."));
    request.addEventListener("abort", failed("You stopped the upload."));
    setSending(request);
    showProgress("Uploading", 0);
    request.send(body);
    return undefined;
  });
  document.getElementById("stop").addEventListener("click", () => sending && sending.abort());
  const ask = (event) => { if (sending) event.preventDefault(); };
  window.addEventListener("beforeunload", ask);
})();
