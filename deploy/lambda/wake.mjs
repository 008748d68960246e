// A task of ours has changed: the controller is told to look at it now. It looks anyway every
// few seconds, so a lost hint costs time only.
import { redis } from './world.mjs';

const length = 10000; // of the stream, as the service keeps it

/** EventBridge's "ECS Task State Change". */
export async function handler(event) {
  const arn = event?.detail?.taskArn;
  if (typeof arn !== 'string' || !/^arn:[^\s]+$/.test(arn)) {
    throw new Error('the event names no task');
  }
  // One line "kind revision id"; a task has no revision of ours. docs/state.md has the stream.
  const stream = `wallcrawler:{${process.env.DEPLOYMENT}}:wake`;
  await (await redis()).command('XADD', stream, 'MAXLEN', '~', length, '*', 'h', `fleet 0 ${arn}`);
}
