"use strict";
(() => {
  const root = document.documentElement;
  const $$ = (selector, within = document) => [...within.querySelectorAll(selector)];

  // The page's colours, as figures need them: variables resolved to what they are now.
  const probe = document.body.appendChild(document.createElement("i"));
  probe.hidden = true;
  const colour = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const template = () => {
    const [text, muted, line, surface, raised] = ["text", "muted", "line", "surface", "raised"].map(colour);
    const axis = {
      gridcolor: line, linecolor: line, zerolinecolor: line, tickcolor: line, tickfont: { color: muted, size: 12 },
      title: { font: { color: text, size: 13 }, standoff: 8 },
    };
    const solid = { ...axis, backgroundcolor: surface, showbackground: false };
    return {
      layout: {
        font: { family: getComputedStyle(document.body).fontFamily, color: text, size: 12.5 },
        paper_bgcolor: surface, plot_bgcolor: surface, xaxis: axis, yaxis: { ...axis, automargin: true },
        scene: { xaxis: solid, yaxis: solid, zaxis: solid, bgcolor: surface },
        hoverlabel: { bgcolor: raised, bordercolor: line, font: { color: text } },
        legend: { font: { color: muted } }, modebar: { bgcolor: "rgba(0,0,0,0)", color: muted, activecolor: text },
      },
      data: { parcoords: [{
        labelfont: { color: text, size: 12 }, tickfont: { color: text, size: 11 }, rangefont: { color: "rgba(0,0,0,0)", size: 1 },
        line: { colorbar: { tickfont: { color: muted } } }, unselected: { line: { color: line, opacity: 0.35 } },
      }] },
    };
  };
  const config = {
    responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  };

  // On paper: light, and as wide as the paper, whatever the screen is.
  const WIDE = 720, NARROW = 360, PATIENCE = 8000;
  const light = () => {
    const before = root.dataset.theme;
    root.dataset.theme = "light";
    const found = template();
    if (before === undefined) delete root.dataset.theme; else root.dataset.theme = before;
    return found;
  };
  async function copyForPaper(plot) {
    const { data, layout } = read(plot);
    const size = { width: plot.closest(".slice") ? NARROW : WIDE, height: layout.height };
    const copy = document.createElement("img");
    copy.className = "paper";
    copy.alt = "";
    copy.src = await Plotly.toImage({ data, layout: { ...layout, ...size, template: light() } }, { format: "svg", ...size });
    if (plot.nextElementSibling && plot.nextElementSibling.className === "paper") plot.nextElementSibling.remove();
    await copy.decode().catch(() => {});
    plot.after(copy);
  }

  // Whoever prints or photographs the page waits for it to be loaded: it is when all figures are drawn, and text is
  // there long before. A frame that is being written holds up that moment.
  const hold = document.body.appendChild(document.createElement("iframe"));
  hold.hidden = true;
  hold.contentDocument.open();

  // WebGL may be slow, or never come where there is none: no other figure waits for it.
  const inTime = (work) => Promise.race([work, new Promise((done) => setTimeout(done, PATIENCE))]);
  const heavy = (plot) => read(plot).data.some(({ type }) => type === "parcoords" || type === "scatter3d");

  const read = (plot) => JSON.parse(document.querySelector(`script[data-for="${plot.id}"]`).textContent);
  const shown = (plot) => !plot.closest("[hidden]");

  async function draw(plot) {
    const { data, layout } = read(plot);
    await Plotly.react(plot, data, { ...layout, autosize: true, template: template() }, config);
    if (!plot.dataset.drawn) {
      plot.dataset.drawn = "yes";
      plot.on("plotly_click", ({ points }) => {
        const told = points[0] && points[0].customdata;
        find(Array.isArray(told) ? told[0] : told);
      });
    }
  }

  async function drawAll(again) {
    const waiting = $$(".plot").filter((plot) => shown(plot) && (again || !plot.dataset.drawn));
    waiting.sort((a, b) => heavy(a) - heavy(b));
    for (const plot of waiting) {
      try {
        const first = !plot.dataset.drawn;
        await inTime(draw(plot));
        if (first) await inTime(copyForPaper(plot));
      } catch (error) {
        console.error(error); // the other figures are drawn
      }
      await new Promise((done) => setTimeout(done)); // the page stays responsive between figures
    }
    document.body.dataset.ready = "yes";
    hold.contentDocument.close();
  }

  function find(id) {
    const row = id && document.getElementById(`trial-${id}`);
    if (!row) return;
    $$("tr.found").forEach((other) => other.classList.remove("found"));
    row.hidden = false;
    row.classList.add("found");
    row.scrollIntoView({ block: "center", behavior: "smooth" });
  }

  // Tables: a click on a head sorts; what is missing stays last.
  function sort(head) {
    const rows = head.closest("table").tBodies[0];
    const place = [...head.parentNode.children].indexOf(head);
    const before = head.getAttribute("aria-sort");
    const falling = before ? before === "ascending" : head.dataset.first === "descending";
    const key = (row) => {
      const cell = row.cells[place];
      if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
      return cell.textContent.trim() || null;
    };
    const order = (a, b) => {
      if (a === null || b === null) return (a === null) - (b === null);
      const sign = falling ? -1 : 1;
      return sign * (typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b)));
    };
    const keyed = [...rows.rows].map((row) => [key(row), row]).sort(([a], [b]) => order(a, b));
    $$("th", head.parentNode).forEach((other) => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", falling ? "descending" : "ascending");
    rows.append(...keyed.map(([, row]) => row));
  }
  for (const head of $$(".sortable th")) {
    head.addEventListener("click", () => sort(head));
    head.addEventListener("keydown", (event) => event.key === "Enter" && sort(head));
  }

  for (const tools of $$(".tools")) {
    const table = document.getElementById(tools.dataset.table);
    const words = tools.querySelector("input[type=search]");
    const choose = () => {
      const states = new Set($$("input:checked", tools).map((box) => box.value));
      const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of table.tBodies[0].rows) {
        const text = row.textContent.toLowerCase();
        row.hidden = !states.has(row.dataset.state) || !wanted.every((word) => text.includes(word));
      }
    };
    tools.addEventListener("input", choose);
  }

  for (const link of $$("a.trial")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      find(link.textContent);
    });
  }

  const objective = document.getElementById("objective");
  if (objective) {
    objective.addEventListener("change", () => {
      $$("[data-objective]").forEach((part) => { part.hidden = part.dataset.objective !== objective.value; });
      drawAll(false);
    });
  }

  const dark = matchMedia("(prefers-color-scheme: dark)");
  document.getElementById("theme").addEventListener("click", () => {
    const now = root.dataset.theme || (dark.matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
    drawAll(true);
  });
  dark.addEventListener("change", () => drawAll(true));

  requestAnimationFrame(() => setTimeout(() => drawAll(false))); // text and tables first
})();
