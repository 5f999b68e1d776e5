// Small helpers. Texts become text nodes: nothing on this page is ever made from a string of HTML.

const META = JSON.parse(document.getElementById("meta").textContent);
const SVG = "http://www.w3.org/2000/svg";

const byId = (id) => document.getElementById(id);
const count = (n, one) => `${n.toLocaleString("en")} ${one}${n === 1 ? "" : "s"}`;
const short = (name) => name.replace(/^single-/, "");

/** What is there of some children, which may be lists, or null or false where there is nothing. */
const present = (children) => children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);

/** Puts children into a node in place of those that it has. */
const put = (node, ...children) => node.replaceChildren(...present(children));

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...present(children));
  return node;
}

/** An element; an attribute that is a function listens for the event of its name. */
const el = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) => fill(document.createElementNS(SVG, tag), attributes, children);

/** A text as it can be seen: control, invisible and direction characters become their codes. */
function visible(text) {
  return String(text).replace(/\r\n?/g, "\n").replace(/[^\n\t\P{C}]/gu,
    (char) => `\\u${char.codePointAt(0).toString(16).padStart(4, "0")}`);
}

/** The bytes of a chunk. */
async function unpack(number) {
  const text = atob(byId(`chunk-${number}`).textContent);
  const bytes = new Uint8Array(text.length);
  for (let at = 0; at < text.length; at += 1) bytes[at] = text.charCodeAt(at);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

const unpackJson = async (number) => JSON.parse(new TextDecoder().decode(await unpack(number)));

/** Tells screen readers. */
function announce(text) {
  byId("status").textContent = text;
}
