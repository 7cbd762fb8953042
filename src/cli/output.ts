// What the commands print: tables for people, one JSON document for programs.

export function printJson(document: object): void {
  print(JSON.stringify(document, null, 2))
}

export function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

/** Columns as wide as their widest cell; the last one is free. */
export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = head.map((title, column) => Math.max(title.length, ...rows.map((row) => (row[column] ?? '').length)))
  return [head, ...rows]
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

export function indent(text: string): string {
  return text.replaceAll(/^(?=.)/gm, '  ')
}

/** On a terminal the line stands there for as long as it takes. */
export async function told<T>(json: true | undefined, line: string, work: Promise<T>): Promise<T> {
  const isTold = !json && process.stderr.isTTY
  if (isTold) process.stderr.write(line)
  try {
    return await work
  } finally {
    if (isTold) process.stderr.write('\r\u001b[K')
  }
}
