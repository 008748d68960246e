// A reporter for Node's test runner: one line of JSON for each test that has ended.
export default async function* report(events) {
  for await (const { type, data } of events) {
    if (type === 'test:pass' || type === 'test:fail') {
      if (data.details?.type === 'suite') continue;
      const error = data.details?.error;
      const why = error === undefined ? '' : String(error.cause?.stack ?? error.cause ?? error.stack ?? error);
      yield `${JSON.stringify({ name: data.name, passed: type === 'test:pass', skipped: data.skip !== undefined, why })}\n`;
    }
  }
}
