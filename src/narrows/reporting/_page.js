"use strict";
(() => {
  const svgNS = "http://www.w3.org/2000/svg";
  const reach = 60; // px from the pointer to the nearest point that it may show
  const tip = document.createElement("div");
  tip.id = "tip";
  tip.setAttribute("role", "status");
  tip.hidden = true;
  document.body.append(tip);

  const fill = (text) => {
    const list = document.createElement("dl");
    for (const line of text.split("\n")) {
      const cut = line.indexOf(": ");
      const name = document.createElement("dt");
      const value = document.createElement("dd");
      name.textContent = line.slice(0, cut);
      value.textContent = line.slice(cut + 2);
      list.append(name, value);
    }
    tip.replaceChildren(list);
  };

  const placeTip = (box) => {
    const width = document.documentElement.clientWidth;
    const left = Math.min(Math.max(8, box.left + box.width / 2 - tip.offsetWidth / 2), width - tip.offsetWidth - 8);
    const above = box.top - tip.offsetHeight - 14;
    tip.style.left = `${left + scrollX}px`;
    tip.style.top = `${(above > 4 ? above : box.bottom + 14) + scrollY}px`;
  };

  const shape = (svg, name, values) => {
    const made = document.createElementNS(svgNS, name);
    for (const [key, value] of Object.entries(values)) made.setAttribute(key, value);
    svg.append(made);
    return made;
  };

  const setUp = (svg) => {
    const head = svg.querySelector(":scope > title");
    svg.setAttribute("aria-label", head.textContent);
    svg.removeAttribute("aria-labelledby");
    head.remove(); // else the browser's own tooltip covers ours
    const points = [...svg.querySelectorAll(".pt")].map((mark) => {
      const title = mark.querySelector("title");
      const [x, y] = mark.getAttribute("transform").match(/-?[\d.]+/g).map(Number);
      const text = title.textContent;
      title.remove();
      return { mark, x, y, text, series: mark.parentNode };
    });
    const { width, height } = svg.viewBox.baseVal;
    let marks = [];
    let current = -1;

    const hide = () => {
      tip.hidden = true;
      marks.forEach((one) => one.remove());
      marks = [];
      current = -1;
    };
    const show = (index) => {
      if (index === current) return;
      hide();
      current = index;
      const { x, y, text, mark } = points[index];
      marks = [
        shape(svg, "path", { class: "cross", d: `M50 ${y}H${x}M${x} ${y}V${height - 46}` }),
        shape(svg, "circle", { class: "ring", cx: x, cy: y, r: 7 }),
      ];
      fill(text);
      tip.hidden = false;
      placeTip(mark.getBoundingClientRect());
    };
    const nearest = (event) => {
      const box = svg.getBoundingClientRect();
      const scale = width / box.width;
      const x = (event.clientX - box.left) * scale;
      const y = (event.clientY - box.top) * scale;
      const dimmed = svg.closest(".highlighted");
      let found = -1;
      let least = (reach * scale) ** 2;
      points.forEach((point, index) => {
        const distance = (point.x - x) ** 2 + (point.y - y) ** 2;
        if (distance < least && !(dimmed && !point.series.classList.contains("on"))) {
          least = distance;
          found = index;
        }
      });
      return found;
    };
    const follow = (event) => {
      const index = nearest(event);
      if (index < 0) hide();
      else show(index);
    };
    svg.addEventListener("pointermove", follow);
    svg.addEventListener("pointerdown", follow);
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("blur", hide);
    svg.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") hide();
      if (!step || !points.length) return;
      event.preventDefault();
      show((Math.max(current, step > 0 ? -1 : 0) + step + points.length) % points.length);
    });
  };

  document.querySelectorAll(".chart > svg").forEach(setUp);

  for (const group of document.querySelectorAll(".group")) {
    const buttons = [...group.querySelectorAll("button.key")];
    const refresh = () => {
      const chosen = new Set(buttons.filter((b) => b.ariaPressed === "true").map((b) => b.dataset.key));
      for (const figure of group.querySelectorAll(".chart")) {
        const series = [...figure.querySelectorAll(".series")];
        series.forEach((one) => one.classList.toggle("on", chosen.has(one.dataset.key)));
        figure.classList.toggle("highlighted", series.some((one) => one.classList.contains("on")));
      }
    };
    buttons.forEach((button) =>
      button.addEventListener("click", () => {
        button.ariaPressed = String(button.ariaPressed !== "true");
        refresh();
      }),
    );
  }
})();
