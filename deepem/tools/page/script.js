"use strict";
// Shows the values of all curves at the iteration under the pointer, in every chart of the page at once.
{
  const plots = [...document.querySelectorAll(".plot")].map((box) => ({
    box, ...JSON.parse(box.querySelector("script").textContent), cross: element("div", "cross"), tip: element("div", "tip"),
  }));

  function element(tag, name, text) {
    const made = document.createElement(tag);
    made.className = name;
    if (text !== undefined) made.textContent = text;
    return made;
  }

  // The index of the value of x that is nearest to an iteration; x ascends.
  function nearest(x, iteration) {
    let low = 0, high = x.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (x[middle] < iteration) low = middle; else high = middle;
    }
    return iteration - x[low] <= x[high] - iteration ? low : high;
  }

  function show(iteration, here) {
    for (const plot of plots) {
      const at = (100 * iteration) / plot.until;
      plot.cross.hidden = at > 100;
      plot.cross.style.left = `${at}%`;
      plot.box.append(plot.cross);
      if (plot !== here) { plot.tip.remove(); continue; }
      plot.tip.replaceChildren(...plot.curves.flatMap((curve) => {
        const i = nearest(curve.x, iteration);
        const row = element("div", `c${curve.colour}`), where = element("small", "", ` at ${curve.x[i].toLocaleString("en")}`);
        row.append(element("i", ""), `${curve.label} ${String(curve.y[i])}`, where);
        return [row];
      }));
      plot.tip.style.left = at < 50 ? `calc(${at}% + 10px)` : "auto";
      plot.tip.style.right = at < 50 ? "auto" : `calc(${100 - at}% + 10px)`;
      plot.box.append(plot.tip);
    }
  }

  function hide() {
    for (const plot of plots) { plot.cross.remove(); plot.tip.remove(); }
  }

  for (const plot of plots) {
    plot.box.addEventListener("pointermove", (event) => {
      const frame = plot.box.getBoundingClientRect();
      const share = Math.min(Math.max((event.clientX - frame.left) / frame.width, 0), 1);
      show(Math.round(share * plot.until), plot);
    });
    plot.box.addEventListener("pointerleave", hide);
  }
}
