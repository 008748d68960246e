// A reporter for Node's test runner: one line of JSON for each test that has ended, and one for each
// that was planned and has not: a file whose process exits in its middle passes as far as the runner
// is concerned.
import path from 'node:path';

export default async function* report(events) {
  const open = new Map(); // tests that were planned and have not ended, by what tells them apart, with their number
  const line = (name, passed, skipped, why) => `${JSON.stringify({ name, passed, skipped, why })}\n`;
  for await (const { type, data } of events) {
    const key = JSON.stringify([data?.file, data?.nesting, data?.name]);
    if (type === 'test:enqueue') open.set(key, (open.get(key) ?? 0) + 1);
    if (type !== 'test:pass' && type !== 'test:fail') continue;
    open.set(key, (open.get(key) ?? 0) - 1);
    const ofFile = data.file !== undefined && path.resolve(data.name) === data.file;
    if (type === 'test:pass' && ofFile) {
      yield line(data.name, false, false, 'none of its tests was reported: has something ended its process?');
      continue;
    }
    if (data.details?.type === 'suite') continue;
    const error = data.details?.error;
    const why = error === undefined ? '' : String(error.cause?.stack ?? error.cause ?? error.stack ?? error);
    yield line(data.name, type === 'test:pass', data.skip !== undefined, why);
  }
  for (const [key, number] of open) {
    const [file, , name] = JSON.parse(key);
    // The runner says nothing of a file whose tests it has heard of.
    if (number > 0 && path.resolve(name) !== file) yield line(name, false, false, 'it was planned and has not ended: has something ended its process?');
  }
}
