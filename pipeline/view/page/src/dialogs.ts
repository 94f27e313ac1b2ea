// Questions that wait for an answer: a class, or yes and no.
import { counted, el, foreign } from "./dom";

const LISTED = 60;

// The class that is chosen by typing, arrow keys and Enter, or a click; null if none is. The dialog is open at once, so that no key
// that is typed for it does something else; what marks classes may come later.
export function chooseClass(classes: readonly string[], marking: Promise<ReadonlyMap<string, string>>): Promise<string | null> {
  return new Promise((resolve) => {
    const search = el("input", { type: "search", placeholder: "part of a class name", "aria-label": "Find a class", autocomplete: "off", role: "combobox", "aria-controls": "choices", "aria-expanded": "true", "aria-autocomplete": "list" });
    const list = el("ul", { className: "choices", id: "choices", role: "listbox", "aria-label": "Classes" });
    const said = el("p", { className: "small", role: "status" });
    const dialog = el("dialog", { className: "picker", "aria-label": "Choose the right class" });
    let shown: string[] = [], at = -1, marks: ReadonlyMap<string, string> = new Map();
    const answer = (label: string | null) => { dialog.close(); dialog.remove(); resolve(label); };
    const point = (place: number) => {
      at = place;
      [...list.children].forEach((item, index) => item.setAttribute("aria-selected", String(index === at)));
      if (at >= 0) { list.children[at].scrollIntoView({ block: "nearest" }); search.setAttribute("aria-activedescendant", list.children[at].id); } else search.removeAttribute("aria-activedescendant");
      said.textContent = at >= 0 ? "" : shown.length ? "Type, or choose with ↓ and ↑; Enter takes the class that is marked." : "No class is called so.";
    };
    const draw = () => {
      const wanted = search.value.trim().toLocaleLowerCase();
      const rank = (name: string) => { const low = name.toLocaleLowerCase(); return !wanted ? (marks.has(name) ? 0 : 1) : low === wanted ? 0 : low.startsWith(wanted) ? 1 : low.includes(wanted) ? 2 : 3; };
      const matching = classes.map((name) => ({ name, rank: rank(name) })).filter((entry) => entry.rank < 3).sort((a, b) => a.rank - b.rank);
      shown = matching.slice(0, LISTED).map(({ name }) => name);
      list.replaceChildren(...shown.map((name, index) => el("li", { id: `choice-${index}`, role: "option", onclick: () => answer(name) }, foreign(name, 60), marks.has(name) ? el("span", { className: "small" }, ` (${marks.get(name)})`) : null)));
      if (matching.length > LISTED) list.append(el("li", { className: "small rest" }, `… ${counted(matching.length - LISTED, "further class").replace("classs", "classes")}: type to narrow`));
      point(wanted && shown.length ? 0 : -1); // nothing is chosen before something was typed or pointed at
    };
    search.addEventListener("input", draw);
    search.addEventListener("keydown", (event) => {
      const move = { ArrowDown: 1, ArrowUp: -1, PageDown: 10, PageUp: -10 }[event.key];
      if (move !== undefined && shown.length) point(at < 0 ? (move > 0 ? 0 : shown.length - 1) : Math.min(Math.max(at + move, 0), shown.length - 1));
      else if (event.key === "Enter") { if (at >= 0) answer(shown[at]); } else return;
      event.preventDefault();
    });
    dialog.append(el("h2", {}, "The right class"), search, list, said, el("button", { type: "button", onclick: () => answer(null) }, "Cancel"));
    dialog.addEventListener("cancel", () => { dialog.remove(); resolve(null); });
    document.body.append(dialog);
    draw();
    dialog.showModal();
    search.focus();
    void marking.then((known) => { marks = known; if (at < 0) draw(); });
  });
}

// Whether a question was answered with yes. Enter alone answers no.
export function confirmed(title: string, text: string, yes: string): Promise<boolean> {
  return new Promise((resolve) => {
    const dialog = el("dialog", { className: "confirm", "aria-label": title });
    const answer = (is: boolean) => { dialog.close(); dialog.remove(); resolve(is); };
    const no = el("button", { type: "button", onclick: () => answer(false) }, "Cancel");
    dialog.append(el("h2", {}, foreign(title, 160)), el("p", {}, foreign(text, 600)), el("p", {}, el("button", { type: "button", className: "yes", onclick: () => answer(true) }, foreign(yes, 80)), " ", no));
    dialog.addEventListener("cancel", () => { dialog.remove(); resolve(false); });
    document.body.append(dialog);
    dialog.showModal();
    no.focus();
  });
}
