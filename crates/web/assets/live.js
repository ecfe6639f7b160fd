// Keeps what is shown up to date: when the router says that something changed, the page is asked for again and its live parts
// are brought up to what it says, without losing focus or what is open.
"use strict";
(() => {
  const EVENTS = "/api/v1/events";
  const PAUSE_MS = 900; // between two looks
  const POLL_MS = 5000; // when there are no events
  const LOOK_TIMEOUT_MS = 10000;
  const liveParts = () => document.querySelectorAll("[data-live]");

  let source = null;
  let timer = null;
  let looking = false;
  let again = false;
  let heard = 0;
  let lastLook = Date.now();

  const say = (word, tone) => {
    const mark = document.querySelector("[data-connection]");
    if (!mark || mark.dataset.connection === tone) return;
    mark.dataset.connection = tone;
    mark.querySelector("[data-connection-word]").textContent = word;
  };

  // Makes `from` what `to` is, in place.
  const morph = (from, to) => {
    if (from.nodeType !== to.nodeType || from.nodeName !== to.nodeName || from.id !== to.id) {
      from.replaceWith(to.cloneNode(true));
      return;
    }
    if (from.nodeType !== Node.ELEMENT_NODE) {
      if (from.nodeValue !== to.nodeValue) from.nodeValue = to.nodeValue;
      return;
    }
    // Somebody is at it.
    if (from.nodeName === "DIALOG" && from.open) return;
    const keeps = (name) => name === "open" && from.nodeName === "DETAILS";
    for (const { name } of [...from.attributes]) {
      if (!to.hasAttribute(name) && !keeps(name)) from.removeAttribute(name);
    }
    for (const { name, value } of [...to.attributes]) {
      if (from.getAttribute(name) !== value && !keeps(name)) from.setAttribute(name, value);
    }
    const old = [...from.childNodes];
    const now = [...to.childNodes];
    now.forEach((child, at) => (at < old.length ? morph(old[at], child) : from.append(child.cloneNode(true))));
    old.slice(now.length).forEach((child) => child.remove());
  };

  const look = async () => {
    if (looking) {
      again = true;
      return;
    }
    if (!liveParts().length) return;
    looking = true;
    lastLook = Date.now();
    try {
      const answer = await fetch(location.href, {
        headers: { accept: "text/html" },
        cache: "no-store",
        signal: AbortSignal.timeout(LOOK_TIMEOUT_MS),
      });
      const text = await answer.text();
      const next = new DOMParser().parseFromString(text, "text/html");
      for (const part of liveParts()) {
        const fresh = next.getElementById(part.id);
        if (fresh) morph(part, fresh);
      }
      if (answer.ok) document.title = next.title;
      say("live", "live");
    } catch {
      say("no answer, trying again", "lost");
    } finally {
      looking = false;
      if (again) {
        again = false;
        soon();
      }
    }
  };

  const soon = () => {
    if (timer || document.hidden) return;
    const fast = document.querySelector("[data-live-fast]") ? 300 : PAUSE_MS;
    timer = setTimeout(() => {
      timer = null;
      look();
    }, fast);
  };

  const open = () => {
    if (source || document.hidden || !liveParts().length) return;
    source = new EventSource(EVENTS);
    const told = () => {
      heard = Date.now();
      soon();
    };
    for (const name of ["overview", "message", "change"]) source.addEventListener(name, told);
    source.onopen = () => say("live", "live");
    source.onerror = () => {
      if (source?.readyState === EventSource.CLOSED) {
        source = null;
      }
    };
  };

  // A hidden page holds no connection: browsers have few of them for one host.
  const close = () => {
    source?.close();
    source = null;
  };

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      close();
    } else {
      open();
      look();
    }
  });
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => event.persisted && (open(), look()));
  document.addEventListener("monofs:changed", () => look());

  setInterval(() => {
    if (document.hidden) return;
    if (!source) open();
    const fast = document.querySelector("[data-live-fast]") ? 500 : POLL_MS;
    const quiet = Date.now() - Math.max(heard, lastLook);
    if (quiet >= fast || Date.now() - lastLook >= 3 * POLL_MS) look();
  }, 500);
  open();
})();
