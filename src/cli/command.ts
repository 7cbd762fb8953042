// What commands have in common.
import { Command, Option } from 'commander'
import { parseTimeoutSeconds } from './values.js'

export interface Shared {
  url: string
  json?: true
}

export interface Waiting extends Shared {
  timeout: number
}

export function aCommand(name: string, description: string): Command {
  return new Command(name).description(description).option('--json', 'print JSON')
}

export function timeoutOption(): Option {
  return new Option('--timeout <time>', 'how long to wait until it is done')
    .argParser(parseTimeoutSeconds)
    .default(30, '30s')
}
