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
    for (const plot of $$(".plot")) {
      if (shown(plot) && (again || !plot.dataset.drawn)) {
        await draw(plot);
        await new Promise((done) => setTimeout(done)); // the page stays responsive between figures
      }
    }
    document.body.dataset.ready = "yes";
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

  addEventListener("load", () => setTimeout(() => drawAll(false))); // text and tables first
})();
