// What the drafted tests beside this file share. Written by `swarm init`; it may be changed.

const LONGEST = 300; // characters of an answer that are compared
const top = new URL("../", import.meta.url);

// Give a module of the repository.
export const load = (path) => import(new URL(path, top));

// Run the tests of a file, say how each ended, and exit 1 if any failed.
export async function run(tests) {
  let allPassed = true;
  for (const [name, test] of Object.entries(tests)) {
    say({ begun: name });
    let error = null;
    try {
      await test();
    } catch (caught) {
      error = caught instanceof Error ? caught : new Error(String(caught));
    }
    allPassed = allPassed && error === null;
    const said = error === null ? "" : `${error.name}: ${error.message}`.split("\n")[0];
    say({ test: name, end: error === null ? "passed" : "failed", error: said, place: "" });
  }
  process.exit(allPassed ? 0 : 1);
}

// Print a line that is not mistaken for what the code under test prints.
function say(what) {
  console.log(`\nswarm-guard ${JSON.stringify(what)}`);
}

// Say what a call gives, so that two runs and two machines say the same.
export async function told(call) {
  try {
    return `gives ${spelled(await call())}`;
  } catch {
    return "raises";
  }
}

function spelled(value) {
  if (typeof value === "function") return "a function";
  if (typeof value === "bigint" || typeof value === "symbol") return String(value);
  if (typeof value === "number" && Number.isFinite(value) && !Number.isInteger(value)) {
    return value.toPrecision(9);
  }
  if (typeof value === "number") return String(value);
  const text = JSON.stringify(value);
  if (text === undefined) return "undefined";
  return text.length > LONGEST ? `${text.slice(0, LONGEST)}...` : text;
}
