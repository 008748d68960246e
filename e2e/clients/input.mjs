// What every script here is given and gives back: JSON in $INPUT, JSON on standard output.
export const input = JSON.parse(process.env.INPUT);

export function print(result) {
  process.stdout.write(JSON.stringify(result) + '\n');
}
