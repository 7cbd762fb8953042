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

export function volumePath(name: string): string {
  return `/v1/volumes/${encodeURIComponent(name)}`
}

export function timeoutOption(what = 'how long to wait until it is done'): Option {
  return new Option('--timeout <time>', what).argParser(parseTimeoutSeconds).default(30, '30s')
}
