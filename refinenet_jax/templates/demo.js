// Asks for the probabilities under the pointer: one question at a time, the latest last.
(() => {
  let asking = false;
  let next = null;

  function show(table, shares) {
    table.replaceChildren(...shares.map(([name, share]) => {
      const row = document.createElement("tr");
      for (const text of [name, (100 * share).toFixed(1) + " %"]) {
        row.appendChild(document.createElement("td")).textContent = text;
      }
      return row;
    }));
  }

  async function ask() {
    asking = true;
    while (next) {
      const [image, x, y] = next;
      next = null;
      const query = new URLSearchParams({ result: image.dataset.result, x, y });
      try {
        const answer = await fetch("probabilities?" + query);
        const table = image.closest("figure").querySelector(".shares");
        show(table, answer.ok ? await answer.json() : []);
      } catch {
        // The program has ended: the picture stays.
      }
    }
    asking = false;
  }

  function pointed(event) {
    const image = event.target;
    if (!(image instanceof HTMLImageElement) || !image.dataset.result) return;
    const box = image.getBoundingClientRect();
    next = [image, (event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    if (!asking) ask();
  }

  document.addEventListener("pointermove", pointed);
  document.addEventListener("pointerdown", pointed);
})();
