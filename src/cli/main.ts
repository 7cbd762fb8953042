#!/usr/bin/env node
import { CommanderError } from 'commander'
import { AnkoleError, errorTable, messageOf, type ErrorCode } from '../api/errors.js'
import { actionOf, UnreachableError } from './client.js'
import { buildProgram } from './program.js'

/** Scripts rely on these. */
const exitCodes = { done: 0, refused: 1, usage: 2, unreachable: 3, timedOut: 4 } as const

async function main(): Promise<number> {
  const program = buildProgram()
  try {
    await program.parseAsync()
    // A command that did its work may have found something that is not well.
    return Number(process.exitCode ?? exitCodes.done)
  } catch (error) {
    return report(error, process.argv.includes('--json'))
  }
}

function report(error: unknown, json: boolean): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? exitCodes.done : exitCodes.usage
  const { code, message, action, exitCode } = explain(error)
  const text = json ? JSON.stringify({ error: { code, message, action } }) : `Error: ${message}\n${action} (${code})`
  process.stderr.write(`${text}\n`)
  return exitCode
}

interface Explanation {
  code: string
  message: string
  action: string
  exitCode: number
}

function explain(error: unknown): Explanation {
  if (error instanceof UnreachableError) {
    return { code: 'unavailable', message: error.message, action: error.action, exitCode: exitCodes.unreachable }
  }
  const code = error instanceof AnkoleError ? error.code : 'internal'
  const exitCode = exitCodeOf(code)
  return { code, message: messageOf(error), action: actionOf(code), exitCode }
}

function exitCodeOf(code: ErrorCode): number {
  if (code === 'timed-out') return exitCodes.timedOut
  return errorTable[code].http === 400 ? exitCodes.usage : exitCodes.refused
}

// Whoever reads it has seen enough, as `head` has.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error
})

const exitCode = await main()
// A command that is done may have said by it what it found.
if (exitCode !== exitCodes.done) process.exitCode = exitCode
