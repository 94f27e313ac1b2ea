
"use strict";
(() => {
  const root = document.documentElement;
  const THEMES = ["auto", "light", "dark"];
  // a page opened from disk may have no storage
  const remember = (key, value) => { try { localStorage.setItem(key, value); } catch { /* shown for this visit only */ } };
  const recall = (key) => { try { return localStorage.getItem(key); } catch { return null; } };
  const setTheme = (theme) => {
    if (theme === "auto") delete root.dataset.theme; else root.dataset.theme = theme;
  };
  let theme = THEMES.includes(recall("heatlas-theme")) ? recall("heatlas-theme") : "auto";
  setTheme(theme);

  const themeButton = () => {
    const button = document.getElementById("theme");
    const tell = () => { button.lastElementChild.textContent = theme; };
    button.hidden = false;
    tell();
    button.addEventListener("click", () => {
      theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
      setTheme(theme);
      remember("heatlas-theme", theme);
      tell();
    });
  };

  const opacitySlider = () => {
    if (!document.querySelector(".pair .overlay")) return;
    const sliders = [...document.querySelectorAll(".opacity-slider")];
    document.querySelectorAll(".opacity-control").forEach((control) => { control.hidden = false; });
    for (const slider of sliders) slider.addEventListener("input", () => {
      root.style.setProperty("--map-opacity", slider.value / 100);
      for (const other of sliders) other.value = slider.value;
    });
    document.getElementById("outlined").addEventListener("change", (event) => root.classList.toggle("outlined", event.target.checked));
  };

  const sections = () => {
    const links = new Map([...document.querySelectorAll(".sections a")].map((link) => [link.hash.slice(1), link]));
    const visible = new Set();
    const watcher = new IntersectionObserver((entries) => {
      for (const entry of entries) entry.isIntersecting ? visible.add(entry.target.id) : visible.delete(entry.target.id);
      const first = [...links.keys()].find((id) => visible.has(id));
      for (const [id, link] of links) id === first ? link.setAttribute("aria-current", "true") : link.removeAttribute("aria-current");
    }, { rootMargin: "-80px 0px -55% 0px" });
    for (const id of links.keys()) { const part = document.getElementById(id); if (part) watcher.observe(part); }
  };

  const valueOf = (row, column, numeric) => {
    const cell = row.cells[column];
    const raw = cell.dataset.v ?? cell.textContent.trim();
    if (!numeric) return raw.toLocaleLowerCase();
    return raw === "" ? null : Number(raw);
  };

  const sortable = (table) => {
    const body = table.tBodies[0];
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      const button = head.querySelector("button");
      if (!button) return;
      button.addEventListener("click", () => {
        const numeric = head.classList.contains("n");
        const usual = numeric ? "descending" : "ascending";
        const now = head.getAttribute("aria-sort");
        const order = now === null ? usual : now === "ascending" ? "descending" : "ascending";
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", order);
        const sign = order === "ascending" ? 1 : -1;
        const keyed = [...body.rows].map((row) => [valueOf(row, column, numeric), row]);
        keyed.sort(([a], [b]) => {
          if (a === b) return 0;
          if (a === null) return 1; // what has no value comes last in either order
          if (b === null) return -1;
          return sign * (numeric ? a - b : a.localeCompare(b, undefined, { numeric: true }));
        });
        body.append(...keyed.map(([, row]) => row));
      });
    });
  };

  const filterable = (form) => {
    const table = document.getElementById(form.dataset.table);
    const rows = [...table.tBodies[0].rows];
    const fields = [...form.querySelectorAll("[data-field]")];
    const tell = form.querySelector("output");
    const apply = () => {
      let shown = 0;
      for (const row of rows) {
        row.hidden = !fields.every((field) => {
          const wanted = field.value;
          if (wanted === "") return true;
          const has = row.dataset[field.dataset.field] ?? "";
          return field.type === "search" ? has.toLocaleLowerCase().includes(wanted.toLocaleLowerCase()) : has === wanted;
        });
        if (!row.hidden) shown += 1;
      }
      tell.value = `${shown} of ${rows.length} rows`;
    };
    document.addEventListener("click", (event) => { // links elsewhere in the page that choose rows
      const link = event.target.closest("a[data-choose]");
      const field = link && fields.find((one) => one.dataset.field === link.dataset.field);
      if (!field) return;
      form.reset();
      setTimeout(() => { field.value = link.dataset.choose; apply(); });
    });
    form.hidden = false;
    form.addEventListener("input", apply);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => setTimeout(apply));
    apply();
    document.addEventListener("keydown", (event) => {
      if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.target.closest("input, select, textarea, dialog")) return;
      event.preventDefault();
      form.querySelector("input").focus();
    });
  };

  const viewer = () => {
    const dialog = document.getElementById("viewer");
    const place = document.getElementById("viewer-place");
    const content = document.getElementById("viewer-content");
    let cards = [];
    let at = 0;
    const show = () => {
      const card = cards[at];
      content.replaceChildren(card.querySelector("svg").cloneNode(true), card.querySelector(".body").cloneNode(true));
      place.textContent = `${at + 1} of ${cards.length}`;
    };
    const step = (by) => { at = (at + by + cards.length) % cards.length; show(); };
    document.addEventListener("click", (event) => {
      const opener = event.target.closest(".card .open");
      if (!opener) return;
      cards = [...opener.closest(".gallery").querySelectorAll(".card:has(.open)")];
      at = cards.indexOf(opener.closest(".card"));
      show();
      dialog.showModal();
    });
    dialog.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (event.target === dialog || button?.dataset.close !== undefined) dialog.close();
      else if (button) step(Number(button.dataset.step));
    });
    dialog.addEventListener("keydown", (event) => {
      if (event.target.matches("input")) return;
      if (event.key === "ArrowRight") step(1);
      else if (event.key === "ArrowLeft") step(-1);
    });
    dialog.addEventListener("close", () => cards[at]?.querySelector(".open").focus());
  };

  document.addEventListener("DOMContentLoaded", () => {
    themeButton();
    opacitySlider();
    sections();
    viewer();
    document.querySelectorAll("table.sortable").forEach(sortable);
    document.querySelectorAll("form.filters").forEach(filterable);
  });
})();
