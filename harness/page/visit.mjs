// Visits one page in a Chromium that somebody else started: pictures of it, and Lighthouse.
//
// Owns what is asked of the browser. Reads a job as JSON on stdin and writes the answer to the
// file that the job names, or why there is none as the last line on stderr; knows no metrics, and
// starts nothing. `lighthouse` is the folder of the npm package; puppeteer-core is the one that it
// depends on.
//
// A page must not be able to tell the camera from Lighthouse. So Lighthouse's own code sets the
// window, the density of its pixels, the touch screen and the user agent of both; and each picture
// and each run has a context of its own, with no cache, no cookies and no storage of the others.

import {writeFileSync} from 'node:fs';
import {createRequire} from 'node:module';
import {join} from 'node:path';
import {pathToFileURL} from 'node:url';

/** Height that Chromium can draw, in pixels of the screen. */
const HIGHEST = 16_384;

const job = JSON.parse(await text(process.stdin));
const from = (...names) => import(pathToFileURL(join(job.lighthouse, ...names)).href);
const require = createRequire(join(job.lighthouse, 'package.json'));
const {default: puppeteer} = await import(pathToFileURL(require.resolve('puppeteer-core')).href);
const {emulate} = await from('core', 'lib', 'emulation.js');
const {screenEmulationMetrics, userAgents} = await from('core', 'config', 'constants.js');
const audits = job.runs > 0 ? from('core', 'index.js') : null; // read while pictures are taken
const limit_ms = job.timeout_s * 1000;

// What was still asked of a page that is gone by now; whatever counts is waited for.
process.on('unhandledRejection', () => {});
try {
  const browser = await puppeteer.connect({
    browserURL: `http://127.0.0.1:${job.port}`,
    defaultViewport: null,
    protocolTimeout: limit_ms,
  });
  const answer = {pictures: [], reports: []};
  for (const picture of job.pictures) {
    const what = `the picture ${picture.width} wide`;
    answer.pictures.push(await apart(browser, what, page => shoot(page, picture)));
  }
  for (let run = 1; run <= job.runs; run++) {
    answer.reports.push(await apart(browser, `Lighthouse's run ${run}`, audit));
  }
  writeFileSync(job.out, JSON.stringify(answer));
  process.exit(0); // an open socket of the browser's would keep this process alive
} catch (error) {
  fail(error);
}

/** End, and say why: the last line is what is read. */
function fail(error) {
  console.error(String(error.message || error).trim().replaceAll(/\s*\n\s*/g, '; '));
  process.exit(1);
}

/** Do something in a page where nobody has been, within the time for it. */
async function apart(browser, what, does) {
  let timer;
  const late = new Promise((_, reject) => {
    const said = `took longer than ${job.timeout_s} s (does the page come to rest?)`;
    timer = setTimeout(() => reject(new Error(said)), limit_ms);
  });
  try {
    const context = await browser.createBrowserContext();
    const done = (async () => does(await context.newPage()))();
    const answer = await Promise.race([done, late]);
    await context.close();
    return answer;
  } catch (error) {
    throw new Error(`${what}: ${error.message}`); // and with it all ends, the context as well
  } finally {
    clearTimeout(timer);
  }
}

/**
 * Take a picture of the window as it is at first, of the whole page as it is when all was scrolled
 * to, and note the words that can be seen.
 */
async function shoot(page, {width, height, mobile, stem}) {
  const kind = mobile ? 'mobile' : 'desktop';
  const {deviceScaleFactor} = screenEmulationMetrics[kind];
  const session = await page.createCDPSession();
  const sender = {sendCommand: (name, given) => session.send(name, given)};
  const screenEmulation = {mobile, width, height, deviceScaleFactor, disabled: false};
  const settings = {formFactor: kind, emulatedUserAgent: userAgents[kind], screenEmulation};
  await emulate(sender, settings);
  page.on('dialog', dialog => dialog.dismiss().catch(() => {}));

  const went = navigations(page);
  const found = await go(page, went);
  const before = went.length;
  const [taken] = await Promise.allSettled([look(session, stem, HIGHEST / deviceScaleFactor)]);
  if (went.length > before) throw new Error(`it is there, and then goes on to ${went.at(-1)}`);
  if (taken.status === 'rejected') throw taken.reason;
  return found;
}

/** Make the files of a look. */
async function look(session, stem, highest) {
  await inPage(session, settle);
  await draw(session, `${stem}-top.png`, false);
  await inPage(session, scroll, Math.floor(highest));
  await inPage(session, settle);
  writeFileSync(`${stem}.txt`, await inPage(session, words));
  await draw(session, `${stem}.png`, true);
}

/** Take a picture, of the window or of all: by the session that has set the density of pixels. */
async function draw(session, file, whole) {
  const asked = {format: 'png', optimizeForSpeed: true, captureBeyondViewport: whole};
  const {data} = await session.send('Page.captureScreenshot', asked);
  writeFileSync(file, Buffer.from(data, 'base64'));
}

/** Open the page, wait until it rests, and give the address and the status that came in the end. */
async function go(page, went) {
  const [response] = await Promise.allSettled([
    page.goto(job.url, {waitUntil: 'networkidle0', timeout: 0}),
  ]);
  const goal = went.at(-1) ?? job.url;
  if (new URL(goal).origin !== new URL(job.url).origin)
    throw new Error(`it leaves the site for ${goal}`);
  if (response.status === 'rejected') throw response.reason;
  return {url: response.value?.url() ?? goal, status: response.value?.status() ?? null};
}

/** Note each address to which the page goes from now on. */
function navigations(page) {
  const went = [];
  page.on('request', request => {
    if (request.isNavigationRequest() && request.frame() === page.mainFrame())
      went.push(request.url());
  });
  return went;
}

/**
 * Call one of the functions below with the page's document but in a world of its own: what the
 * page has put in the place of `scrollTo` and the like is not called there.
 */
async function inPage(session, does, ...given) {
  const {frameTree} = await session.send('Page.getFrameTree');
  const world = {frameId: frameTree.frame.id, worldName: 'camera'};
  const {executionContextId} = await session.send('Page.createIsolatedWorld', world);
  const {result, exceptionDetails: wrong} = await session.send('Runtime.evaluate', {
    expression: `(${does})(...${JSON.stringify(given)})`,
    contextId: executionContextId,
    awaitPromise: true,
    returnByValue: true,
  });
  const said = wrong?.exception?.description?.split('\n')[0] ?? wrong?.text;
  if (wrong) throw new Error(said.replace(/^Error: /, ''));
  return result.value;
}

/** Scroll to the end, so that what waits for it is fetched, and back. */
async function scroll(highest) {
  const soon = ms => new Promise(resolve => setTimeout(resolve, ms));
  for (let y = 0; y < document.documentElement.scrollHeight; y += innerHeight) {
    if (document.documentElement.scrollHeight > highest)
      throw new Error(`it is, or becomes, higher than the ${highest} px that a picture can show`);
    scrollTo({top: y, behavior: 'instant'});
    await soon(20);
  }
  scrollTo({top: 0, behavior: 'instant'});
  const waiting = [...document.images].filter(image => !image.complete);
  const loaded = waiting.map(image => image.decode().catch(() => {}));
  await Promise.race([Promise.all(loaded), soon(10_000)]);
}

/** Have fonts and pictures ready, and end what moves. */
async function settle() {
  const soon = ms => new Promise(resolve => setTimeout(resolve, ms));
  await document.fonts.ready;
  // A lazy picture that is not near the window would never be ready.
  const pictures = [...document.images].filter(image => image.complete);
  const decoded = pictures.map(image => image.decode().catch(() => {}));
  await Promise.race([Promise.all(decoded), soon(10_000)]);
  for (const animation of document.getAnimations()) {
    const {iterations} = animation.effect?.getTiming() ?? {iterations: 1};
    try {
      if (iterations === Infinity) animation.cancel();
      else animation.finish();
    } catch {
      animation.cancel(); // one that stands still, or goes with the scrolling, has no end
    }
  }
  await soon(100);
}

/** Give the texts that somebody can see: not those without a size, or outside of the page. */
function words() {
  const LEAST = 4; // px
  const large = box => box.width >= LEAST && box.height >= LEAST;
  const reached = box => box.right + scrollX > 0 && box.bottom + scrollY > 0;
  const clipped = element =>
    getComputedStyle(element).overflow !== 'visible' && !large(element.getBoundingClientRect());
  const hidden = element => {
    if (!element.checkVisibility({opacityProperty: true, visibilityProperty: true})) return true;
    for (let each = element; each; each = each.parentElement) if (clipped(each)) return true;
    return false;
  };
  const seen = [];
  const range = document.createRange();
  const all = document.createTreeWalker(document.documentElement, NodeFilter.SHOW_TEXT);
  for (let node = all.nextNode(); node; node = all.nextNode()) {
    if (!node.data.trim() || hidden(node.parentElement)) continue;
    range.selectNodeContents(node);
    if ([...range.getClientRects()].some(box => large(box) && reached(box))) seen.push(node.data);
  }
  return seen.join('\n');
}

/** Run Lighthouse once. */
async function audit(page) {
  const {default: lighthouse} = await audits;
  const {default: desktop} = await from('core', 'config', 'desktop-config.js');
  const config = job.form_factor === 'desktop' ? desktop : undefined;
  const flags = {output: 'json', logLevel: 'error', skipAboutBlank: true, ...job.flags};
  const done = await lighthouse(job.url, flags, config, page);
  if (!done) throw new Error('it has given no report');
  return done.lhr;
}

async function text(stream) {
  let all = '';
  for await (const part of stream.setEncoding('utf8')) all += part;
  return all;
}
