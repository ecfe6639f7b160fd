// What people do: dialogs, forms that call the API, the filter, line links. Errors are shown where they happened.
"use strict";
(() => {
  const TIMEOUT_MS = 30000;
  const announce = (text) => {
    const place = document.getElementById("announce");
    if (!place) return;
    place.textContent = text;
    place.classList.add("shown");
    clearTimeout(announce.timer);
    announce.timer = setTimeout(() => place.classList.remove("shown"), 6000);
  };

  // The fields of a form as the JSON that the API takes; empty ones are left out.
  const body = (form) => {
    const values = {};
    for (const field of form.elements) {
      if (!field.name || field.disabled) continue;
      if (field.type === "checkbox") {
        if (field.checked) values[field.name] = true;
      } else if (field.type === "radio") {
        if (field.checked) values[field.name] = field.value;
      } else if (field.value !== "") {
        values[field.name] = field.value;
      }
    }
    return values;
  };

  const problemOf = async (answer) => {
    try {
      const { error } = await answer.json();
      return { message: error.message || `the router answered ${answer.status}`, hint: error.hint || "" };
    } catch {
      return { message: `the router answered ${answer.status} ${answer.statusText}`, hint: "" };
    }
  };

  const call = async (form) => {
    const { apiMethod: method, apiUrl: url } = form.dataset;
    const options = { method, headers: { accept: "application/json" }, signal: AbortSignal.timeout(TIMEOUT_MS) };
    if (method !== "DELETE" && method !== "GET") {
      options.headers["content-type"] = "application/json";
      options.body = JSON.stringify(body(form));
    }
    try {
      const answer = await fetch(url, options);
      if (!answer.ok) return { problem: await problemOf(answer) };
      const text = await answer.text();
      return { value: text ? JSON.parse(text) : {} };
    } catch (error) {
      const why = error.name === "TimeoutError" ? "did not answer in time" : "cannot be reached";
      return { problem: { message: `The router ${why}.`, hint: "Look whether it was done before you try again." } };
    }
  };

  const showProblem = (form, problem) => {
    const place = form.querySelector("[data-error]");
    if (!place) return announce(problem.message);
    place.replaceChildren();
    if (!problem) return;
    const strong = document.createElement("strong");
    strong.textContent = problem.message;
    place.append(strong);
    if (problem.hint) place.append(" ", problem.hint);
  };

  const submit = async (form) => {
    const buttons = [...form.querySelectorAll("button")];
    showProblem(form, null);
    buttons.forEach((button) => (button.disabled = true));
    form.setAttribute("aria-busy", "true");
    const { value, problem } = await call(form);
    form.removeAttribute("aria-busy");
    buttons.forEach((button) => (button.disabled = false));
    matchConfirmation(form);
    if (problem) return showProblem(form, problem);
    form.closest("dialog")?.close();
    const next = form.dataset.next;
    if (next) {
      location.assign(next.replace("{path}", encodePath(value.path ?? "")));
      return;
    }
    announce(form.dataset.done || "Done.");
    document.dispatchEvent(new CustomEvent("monofs:changed"));
  };

  const encodePath = (path) => String(path).split("/").map(encodeURIComponent).join("/");

  // A form that asks to type something can only be sent when it was typed.
  const matchConfirmation = (form) => {
    const field = form.querySelector("[data-must-equal]");
    if (!field) return;
    form.querySelector("button[type=submit]").disabled = field.value !== field.dataset.mustEqual;
  };

  document.addEventListener("submit", (event) => {
    const form = event.target;
    if (!form.dataset.apiUrl) return;
    event.preventDefault();
    submit(form);
  });

  document.addEventListener("input", (event) => {
    const form = event.target.form;
    if (form?.dataset.apiUrl) matchConfirmation(form);
  });

  document.addEventListener("click", (event) => {
    const opener = event.target.closest("[data-dialog]");
    if (opener) {
      const dialog = document.getElementById(opener.dataset.dialog);
      const form = dialog.querySelector("form");
      form.reset();
      showProblem(form, null);
      matchConfirmation(form);
      dialog.showModal();
      return;
    }
    if (event.target.closest("[data-close]")) event.target.closest("dialog").close();
    const menu = event.target.closest("[data-menu]");
    if (menu) {
      const shown = menu.getAttribute("aria-expanded") !== "true";
      menu.setAttribute("aria-expanded", String(shown));
      document.getElementById(menu.getAttribute("aria-controls")).classList.toggle("open", shown);
    }
    const copy = event.target.closest("[data-copy]");
    if (copy) {
      navigator.clipboard?.writeText(copy.dataset.copy).then(
        () => announce("Copied."),
        () => announce("The browser does not let this page copy."),
      );
    }
  });

  // "/" goes to the filter, as long as nobody is typing.
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, [contenteditable]") || document.querySelector("dialog[open]")) return;
    const filter = document.querySelector("[data-filter]");
    if (!filter) return;
    event.preventDefault();
    filter.focus();
    filter.select();
  });

  // Choosing in a list of choices applies at once; typing waits for Enter.
  document.addEventListener("change", (event) => {
    if (event.target.matches("select[data-apply]")) event.target.form.requestSubmit();
  });

  // #L10 and #L10-L20 mark lines; clicking a number links to it, with shift from the last one on.
  const mark = () => {
    for (const line of document.querySelectorAll(".line-marked")) line.classList.remove("line-marked");
    const found = /^#L(\d+)(?:-L(\d+))?$/.exec(location.hash);
    if (!found) return;
    const ends = [Number(found[1]), Number(found[2] ?? found[1])].sort((a, b) => a - b);
    for (let number = ends[0]; number <= Math.min(ends[1], ends[0] + 50000); number++) {
      document.getElementById(`L${number}`)?.classList.add("line-marked");
    }
    document.getElementById(`L${ends[0]}`)?.scrollIntoView({ block: "center" });
  };
  addEventListener("hashchange", mark);
  document.addEventListener("click", (event) => {
    const number = event.target.closest("a.line-number");
    const from = /^#L(\d+)/.exec(location.hash);
    if (!number || !event.shiftKey || !from) return;
    event.preventDefault();
    const lines = [Number(from[1]), Number(number.hash.slice(2))].sort((a, b) => a - b);
    location.hash = `#L${lines[0]}-L${lines[1]}`;
  });
  mark();
})();
