// SPDX-License-Identifier: Apache-2.0
// Keeps an open page current, by the stream of vmwatch/panel/live.py. Without it a page shows what it was
// loaded with, times in UTC. HTML comes from the panel's own templates, escaped there.
"use strict";

(() => {
  const root = document.querySelector("[data-live]");
  const state = document.getElementById("live");

  // Durations count on, and moments are shown in the reader's own time zone.

  const pad = (number) => String(number).padStart(2, "0");
  let ahead = 0; // of this machine's clock over the panel's, in ms

  function ago(then) {
    const seconds = Math.floor(Math.max(0, Date.now() - ahead - then) / 1000);
    for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
      if (seconds >= size) return `${Math.floor(seconds / size)} ${unit}`;
    }
    return `${seconds} s`;
  }

  function clock(then) {
    const today = new Date();
    const time = `${pad(then.getHours())}:${pad(then.getMinutes())}`;
    if (then.toDateString() === today.toDateString()) return `${time}:${pad(then.getSeconds())}`;
    return `${then.getFullYear()}-${pad(then.getMonth() + 1)}-${pad(then.getDate())} ${time}`;
  }

  function write(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  function tick() {
    for (const time of document.querySelectorAll("time[data-ago]")) write(time, ago(Date.parse(time.dateTime)));
  }

  function localise(part) {
    for (const time of part.querySelectorAll("time[data-clock]")) {
      write(time, clock(new Date(time.dateTime)));
    }
    for (const text of part.querySelectorAll("text[data-clock]")) {
      const shown = text.textContent;
      const then = new Date(Number(text.dataset.clock));
      const time = `${pad(then.getHours())}:${pad(then.getMinutes())}`;
      if (shown.includes(":")) write(text, shown.length > 5 ? `${time}:${pad(then.getSeconds())}` : time);
    }
  }

  // The stream's messages. What is replaced keeps what its reader did with it: the focus, what is ticked or open.

  function fragmentOf(html) {
    const template = document.createElement("template");
    template.innerHTML = html.trim();
    return template.content;
  }

  // Where the focus is, in words that find it again in other elements of the same kind.
  function focusIn(element) {
    const at = document.activeElement;
    if (!element.contains(at)) return null;
    for (const name of ["id", "href", "formaction", "value"]) {
      if (at.getAttribute(name)) return `${at.localName}[${name}="${CSS.escape(at.getAttribute(name))}"]`;
    }
    return at.localName;
  }

  function replace(old, change) {
    const focus = focusIn(old);
    const ticked = Array.from(old.querySelectorAll("input:checked"), (box) => box.value);
    const open = Array.from(old.querySelectorAll("details"), (details) => details.open);
    const fresh = change();
    for (const box of fresh.querySelectorAll("input[type=checkbox]")) box.checked = ticked.includes(box.value);
    fresh.querySelectorAll("details").forEach((details, at) => {
      details.open = open[at] ?? details.open;
    });
    if (focus) fresh.querySelector(focus)?.focus();
  }

  function showRows(change, isFirst) {
    const body = document.getElementById("rows");
    const rows = new Map(Array.from(body.children, (row) => [row.dataset.id, row]));
    for (const [id, html] of Object.entries(change.rows || {})) {
      const old = rows.get(id);
      const row = fragmentOf(html).firstElementChild;
      if (!isFirst) row.classList.add("changed");
      rows.set(id, row);
      if (!old) continue;
      replace(old, () => {
        old.replaceWith(row);
        return row;
      });
    }
    if (change.order) place(body, change.order.map((id) => rows.get(String(id))).filter(Boolean));
  }

  // Rows that stay where they are are not touched: a row that is moved loses its focus.
  function place(body, rows) {
    const kept = new Set(rows);
    for (const row of Array.from(body.children)) if (!kept.has(row)) row.remove();
    rows.forEach((row, at) => {
      if (body.children[at] !== row) body.insertBefore(row, body.children[at] || null);
    });
  }

  function showParts(parts, isFirst) {
    for (const [id, html] of Object.entries(parts)) {
      const part = document.getElementById(id);
      if (!part) continue;
      replace(part, () => {
        part.replaceChildren(fragmentOf(html));
        return part;
      });
      if (id === "badge" && !isFirst) tell(part.textContent.trim());
    }
  }

  // For those who do not see the number change.
  function tell(open) {
    write(document.getElementById("told"), open ? `Problems: ${open}` : "No open problems");
  }

  function setState(name, text) {
    state.dataset.state = name;
    write(state, text);
  }

  function leave() {
    if (document.querySelector("form.sheet")) setState("off", "signed out"); // what is typed would be lost
    else location.reload();
  }

  function listen() {
    const address = new URL(root.dataset.live, location.href);
    for (const [name, value] of new URLSearchParams(location.search)) {
      if (!address.searchParams.has(name)) address.searchParams.set(name, value);
    }
    const stream = new EventSource(address);
    let isFirst = true;
    stream.onopen = () => {
      isFirst = true; // the panel begins each stream with everything
      setState("on", "live");
    };
    stream.onmessage = (message) => {
      const change = JSON.parse(message.data);
      if (change.rows || change.order) showRows(change, isFirst);
      if (change.parts) showParts(change.parts, isFirst);
      isFirst = false;
      localise(document);
      tick();
    };
    stream.onerror = () => {
      setState("off", "reconnecting");
      if (stream.readyState !== EventSource.CLOSED) return;
      // An answer that is no stream: the session has ended (then loading shows the sign-in page), or the
      // panel is starting. Either way, ask again calmly.
      setTimeout(() => fetch(address, { method: "HEAD" }).then(retry, listen), 2000);
    };
    const retry = (answer) => (answer.status === 401 ? leave() : listen());
    addEventListener("pagehide", () => stream.close(), { once: true });
  }

  const all = document.querySelector("[data-tick-all]");
  if (all) {
    all.hidden = false;
    all.addEventListener("change", () => {
      for (const box of document.querySelectorAll("#rows input[type=checkbox]")) box.checked = all.checked;
    });
  }

  addEventListener("pageshow", (event) => event.persisted && location.reload());
  ahead = root.dataset.now ? Date.now() - Number(root.dataset.now) : 0;
  localise(document);
  tick();
  setInterval(tick, 1000);
  listen();
})();
