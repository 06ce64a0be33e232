"use strict";
const by = (id) => document.getElementById(id);
let query = null, attacked = false, asked = 0;

const say = (text, failed) => { by("status").textContent = text; by("status").classList.toggle("failed", Boolean(failed)); };
const plural = (count) => (count === 1 ? "1 picture" : `${count} pictures`);

function show(image, address) { image.src = address; image.hidden = false; }

function list(where, results) {
  where.replaceChildren(...results.map((one) => {
    const figure = document.createElement("figure"), image = document.createElement("img"), caption = document.createElement("figcaption");
    figure.className = one.correct ? "right" : "wrong";
    figure.dataset.place = one.place;
    image.src = `/pictures/${one.place}.png`;
    image.alt = `class ${one.class_name}, ${one.correct ? "right" : "wrong"}`;
    caption.title = one.class_name;
    const mark = document.createElement("span");
    mark.className = `mark ${figure.className}`;
    mark.textContent = one.correct ? "✓ " : "✗ ";
    caption.append(mark, one.class_name);
    figure.append(image, caption);
    return figure;
  }));
}

function fill(section, answer, size) {
  for (const name of ["view", "perturbation", "perturbed"]) show(section.querySelector(`img.${name}`), answer[name]);
  const aim = section.querySelector(".aim");
  aim.hidden = answer.target === null || size === 0;
  if (!aim.hidden) section.querySelector("img.target").src = `/pictures/${answer.target}.png`;
  const right = (results) => results.filter((one) => one.correct).length;
  for (const when of ["before", "after"]) {
    list(section.querySelector(`.results.${when}`), answer[when]);
    section.querySelector(`.count.${when}`).textContent = `${right(answer[when])} of ${answer[when].length} right`;
  }
  const kept = answer.after.filter((one) => answer.before.some((other) => other.place === one.place)).length;
  section.querySelector(".verdict").textContent = size === 0
    ? "Not attacked."
    : `The embedding moved by ${answer.shift.toFixed(2)} of at most 2; ${plural(kept)} of ${answer.before.length} stayed in the results.`;
}

async function ask(size) {
  const number = ++asked, label = by("label").value;
  say(size === 0 ? "Searching …" : "Attacking …");
  by("go").disabled = true;
  try {
    const body = { ...query, attack: by("attack").value, epsilon: size };
    if (query.upload && label !== "") body.label = Number(label);
    const response = await fetch("/attack", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
    const found = await response.json();
    if (number !== asked) return;
    if (!response.ok) { say(found.error, true); return; }
    found.answers.forEach((answer, model) => fill(document.querySelector(`[data-model="${model}"]`), answer, size));
    say(size === 0 ? "Found. Now attack it." : `Attacked with ε = ${size}/255.`);
    document.body.dataset.answered = number;
  } catch {
    if (number === asked) say("The demo does not answer; is its command still running?", true);
  } finally {
    if (number === asked) by("go").disabled = query === null;
  }
}

function choose(chosen, button) {
  query = chosen;
  attacked = false;
  by("known").hidden = !chosen.upload;
  for (const one of document.querySelectorAll(".pick")) one.setAttribute("aria-pressed", String(one === button));
  return ask(0);
}

function attack() { attacked = true; return ask(Number(by("epsilon").value)); }

by("suggestions").addEventListener("click", (event) => {
  const button = event.target.closest(".pick");
  if (button) choose({ place: Number(button.dataset.place) }, button);
});
by("upload").addEventListener("change", () => {
  const file = by("upload").files[0];
  if (!file) return;
  const reader = new FileReader();
  reader.onload = () => choose({ upload: reader.result.slice(reader.result.indexOf(",") + 1) }, null);
  reader.onerror = () => say("The browser cannot read that file.", true);
  reader.readAsDataURL(file);
});
by("epsilon").addEventListener("input", () => { by("size").textContent = `${by("epsilon").value}/255`; });
by("epsilon").addEventListener("change", () => { if (attacked) attack(); });
by("attack").addEventListener("change", () => { if (attacked) attack(); });
by("label").addEventListener("change", () => { if (query) attacked ? attack() : ask(0); });
by("go").addEventListener("click", attack);
