// The one table of errors: what they are called, what HTTP and gRPC say, and what the reader should do. A leaf: it
// imports nothing, so that every part of the control plane may throw from it. docs/reference/errors.md is the same
// table for people, native/base/error_codes.h holds the names that the data path uses; a test holds all three together.

/** gRPC's status codes by name, as the CSI driver answers them. */
export type GrpcStatus =
  | 'INVALID_ARGUMENT'
  | 'NOT_FOUND'
  | 'ALREADY_EXISTS'
  | 'PERMISSION_DENIED'
  | 'RESOURCE_EXHAUSTED'
  | 'FAILED_PRECONDITION'
  | 'ABORTED'
  | 'OUT_OF_RANGE'
  | 'UNIMPLEMENTED'
  | 'INTERNAL'
  | 'UNAVAILABLE'
  | 'DATA_LOSS'
  | 'DEADLINE_EXCEEDED'
  | 'CANCELLED'
  | 'UNAUTHENTICATED'

export interface ErrorEntry {
  http: number
  grpc: GrpcStatus
  /** What the reader should do. */
  action: string
}

/** Also known to the native core, under the same names. */
export const sharedErrors = {
  'invalid-argument': {
    http: 400,
    grpc: 'INVALID_ARGUMENT',
    action: 'Correct the value that the message names.',
  },
  'out-of-range': {
    http: 400,
    grpc: 'OUT_OF_RANGE',
    action: 'Use a value inside the range that the message names.',
  },
  'not-found': {
    http: 404,
    grpc: 'NOT_FOUND',
    action: 'Check the name; `ankole volume list` and `ankole status` show what exists.',
  },
  'already-exists': {
    http: 409,
    grpc: 'ALREADY_EXISTS',
    action: 'Choose another name, or use the existing one.',
  },
  'permission-denied': {
    http: 403,
    grpc: 'PERMISSION_DENIED',
    action: 'Give the user that runs Ankole the right that the message names.',
  },
  'io-error': {
    http: 500,
    grpc: 'DATA_LOSS',
    action:
      'Look at the kernel log of the node (dmesg) for the disk that the message names; replace the disk if it failed.',
  },
  'no-space': {
    http: 507,
    grpc: 'RESOURCE_EXHAUSTED',
    action: 'Free space on the disk that the message names. Nothing is lost: writes go on once there is space.',
  },
  'read-only': {
    http: 409,
    grpc: 'FAILED_PRECONDITION',
    action: 'Mount the file system of the disk read-write.',
  },
  corrupt: {
    http: 500,
    grpc: 'DATA_LOSS',
    action: 'Do not delete anything. Look at the file that the message names; other replicas may hold a good copy.',
  },
  busy: {
    http: 409,
    grpc: 'FAILED_PRECONDITION',
    action: 'Wait for the other user of the object that the message names to end, or end it, and try again.',
  },
  'address-in-use': {
    http: 409,
    grpc: 'FAILED_PRECONDITION',
    action: 'End the process that listens there (`ss -ltnp` shows it), or choose another port.',
  },
  'timed-out': {
    http: 504,
    grpc: 'DEADLINE_EXCEEDED',
    action: 'Nothing was undone: look at `ankole status` for what it waits for, and ask again.',
  },
  'connection-lost': {
    http: 503,
    grpc: 'UNAVAILABLE',
    action: 'Try again; if it stays, see whether the process or node that the message names runs.',
  },
  'protocol-error': {
    http: 502,
    grpc: 'INTERNAL',
    action: 'Check that both sides run the same release of Ankole and that nothing else talks to this port.',
  },
  'authentication-failed': {
    http: 401,
    grpc: 'UNAUTHENTICATED',
    action: 'The two sides hold different secrets: check that the replica belongs to this cluster.',
  },
  fenced: {
    http: 409,
    grpc: 'ABORTED',
    action: 'Nothing: a newer attachment of the volume took over, and this engine stops.',
  },
  'not-enough-replicas': {
    http: 503,
    grpc: 'UNAVAILABLE',
    action: 'Bring back the disks that the message names; the volume starts once enough replicas answer.',
  },
  unsupported: {
    http: 501,
    grpc: 'UNIMPLEMENTED',
    action: 'Use a file system, kernel or release that has what the message names.',
  },
  cancelled: {
    http: 409,
    grpc: 'CANCELLED',
    action: 'Ask again, if it is still wanted.',
  },
  suspect: {
    http: 409,
    grpc: 'FAILED_PRECONDITION',
    action:
      'Nothing by hand: the replica may have lost writes with its machine and must not serve before it was compared.',
  },
  unavailable: {
    http: 503,
    grpc: 'UNAVAILABLE',
    action: 'Try again in a moment.',
  },
  internal: {
    http: 500,
    grpc: 'INTERNAL',
    action: 'This is a fault of Ankole: please report it with the log lines around it.',
  },
} as const satisfies Record<string, ErrorEntry>

/** Known to the control plane only. */
export const controlErrors = {
  'invalid-name': {
    http: 400,
    grpc: 'INVALID_ARGUMENT',
    action: 'Use 1 to 63 lower-case letters, digits and hyphens, with a letter or digit at both ends.',
  },
  'invalid-size': {
    http: 400,
    grpc: 'OUT_OF_RANGE',
    action: 'Use a size from 1MiB to 64TiB, such as 512MiB, 10GiB or 10G; plain bytes must be a multiple of 4096.',
  },
  'invalid-chap': {
    http: 400,
    grpc: 'INVALID_ARGUMENT',
    action:
      'Give a user and a secret of 12 to 64 printable ASCII characters; mutual CHAP needs another user and another secret on top.',
  },
  'cannot-place': {
    http: 409,
    grpc: 'RESOURCE_EXHAUSTED',
    action: 'Add disks or free space as the message says, or ask for fewer replicas.',
  },
  'volume-in-use': {
    http: 409,
    grpc: 'FAILED_PRECONDITION',
    action: 'Disconnect the clients first, or repeat with force (`ankole volume delete NAME --force`).',
  },
  'volume-attached': {
    http: 409,
    grpc: 'FAILED_PRECONDITION',
    action: 'Detach the volume from the other node first.',
  },
  'volume-not-attached': {
    http: 409,
    grpc: 'FAILED_PRECONDITION',
    action: 'Attach the volume first (`ankole volume attach NAME`).',
  },
  'volume-deleting': {
    http: 409,
    grpc: 'FAILED_PRECONDITION',
    action: 'Wait until the volume is gone; its name is free then.',
  },
  'volume-faulted': {
    http: 503,
    grpc: 'UNAVAILABLE',
    action: 'Read what the message lacks, bring it back, and ask again; nothing was undone.',
  },
  'volume-importing': {
    http: 409,
    grpc: 'FAILED_PRECONDITION',
    action:
      'Wait until its import has ended. If that was killed, delete the volume (`ankole volume delete NAME`), and import again.',
  },
  'volume-read-only': {
    http: 409,
    grpc: 'FAILED_PRECONDITION',
    action:
      'Look whether it holds what it should; then detach it and let it be written to (`ankole volume update NAME --read-write`).',
  },
  'invalid-replica': {
    http: 422,
    grpc: 'FAILED_PRECONDITION',
    action: 'Remove the cause that the message names, and adopt the directory again; nothing was changed.',
  },
  'volume-changed': {
    http: 409,
    grpc: 'ABORTED',
    action:
      'Export again while nobody writes: detach the volume, or freeze the file system on it; or take what comes with --live.',
  },
  'invalid-image': {
    http: 422,
    grpc: 'INVALID_ARGUMENT',
    action: 'Give another image, or convert this one as the message says; nothing was changed.',
  },
  'file-error': {
    http: 500,
    grpc: 'FAILED_PRECONDITION',
    action: 'Remove the cause that the message names, and ask again; nothing was changed.',
  },
  'missing-program': {
    http: 501,
    grpc: 'UNIMPLEMENTED',
    action:
      'Install the program that the message names where you give the command, and ask again; nothing was changed.',
  },
  'snapshot-failed': {
    http: 503,
    grpc: 'UNAVAILABLE',
    action:
      'Remove the cause that the message names, and take it again: a snapshot that failed does not hold its name.',
  },
  'snapshot-not-ready': {
    http: 409,
    grpc: 'FAILED_PRECONDITION',
    action: 'Wait until it is ready (`ankole snapshot list VOLUME` shows it), or use another one.',
  },
  'snapshot-in-use': {
    http: 409,
    grpc: 'FAILED_PRECONDITION',
    action: 'Wait until what the message names has ended, or end it, and ask again.',
  },
  'snapshot-has-clones': {
    http: 409,
    grpc: 'FAILED_PRECONDITION',
    action:
      'Delete the clones that the message names first, or keep the snapshot: linked clones have its files. A full clone ' +
      '(`ankole snapshot clone --full`) needs none of them.',
  },
  'clone-failed': {
    http: 409,
    grpc: 'FAILED_PRECONDITION',
    action: 'Remove the cause that the message names, and ask again; nothing was made. `--full` needs no common disk.',
  },
  'revert-failed': {
    http: 409,
    grpc: 'FAILED_PRECONDITION',
    action: 'Remove the cause that the message names, and ask again; the volume is as it was.',
  },
  'revert-unknown': {
    http: 503,
    grpc: 'UNAVAILABLE',
    action:
      'Attach the volume and look at what it holds, or at the tree of its snapshots; then ask again if need be. What it ' +
      'held before is in the snapshot that the message names.',
  },
  'too-many-snapshots': {
    http: 409,
    grpc: 'RESOURCE_EXHAUSTED',
    action: 'Delete snapshots of the volume that are not needed (`ankole snapshot delete VOLUME NAME`).',
  },
  'salvage-not-needed': {
    http: 409,
    grpc: 'FAILED_PRECONDITION',
    action: 'Attach the volume first; only one whose engine says what it lacks to start can be salvaged.',
  },
  'stale-attachment': {
    http: 409,
    grpc: 'ABORTED',
    action: 'Nothing: a newer attachment of the volume took over.',
  },
  'stale-record': {
    http: 409,
    grpc: 'ABORTED',
    action: 'Nothing: the store already holds a newer membership record.',
  },
  conflict: {
    http: 409,
    grpc: 'ABORTED',
    action: 'Read the object again and repeat the change.',
  },
  'store-corrupt': {
    http: 500,
    grpc: 'DATA_LOSS',
    action:
      'Stop Ankole, keep a copy of the file that the message names, and restore it from a backup. The volumes are not in it: do not delete the disks.',
  },
  'store-foreign': {
    http: 500,
    grpc: 'FAILED_PRECONDITION',
    action: 'Point --data at a directory of Ankole, or at an empty one.',
  },
  'store-newer': {
    http: 500,
    grpc: 'FAILED_PRECONDITION',
    action: 'Run the release of Ankole that wrote it, or a newer one.',
  },
  'data-directory-in-use': {
    http: 409,
    grpc: 'FAILED_PRECONDITION',
    action: 'Stop the other `ankole up` first, or give this one a --data of its own.',
  },
  'data-directory-unusable': {
    http: 500,
    grpc: 'FAILED_PRECONDITION',
    action: 'Make the directory writable for the user that runs Ankole, or choose another one with --data.',
  },
  'not-ready': {
    http: 503,
    grpc: 'UNAVAILABLE',
    action: 'Wait until GET /healthz answers 200, and try again.',
  },
  forbidden: {
    http: 403,
    grpc: 'PERMISSION_DENIED',
    action: 'Send the request from a program: web pages of other sites may not use this API.',
  },
} as const satisfies Record<string, ErrorEntry>

export const errorTable = { ...sharedErrors, ...controlErrors }

export type ErrorCode = keyof typeof errorTable

export function isErrorCode(code: string): code is ErrorCode {
  return Object.hasOwn(errorTable, code)
}

export class AnkoleError extends Error {
  readonly code: ErrorCode

  /** The message names the object, the operation and the cause. */
  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options)
    this.name = 'AnkoleError'
    this.code = code
  }

  get entry(): ErrorEntry {
    return errorTable[this.code]
  }
}

/** Why a server cannot listen, in words of the table; undefined: for a reason of its own. */
export function listenError(who: string, where: string, error: unknown): AnkoleError | undefined {
  const code = error instanceof Error && 'code' in error ? error.code : ''
  switch (code) {
    case 'EADDRINUSE':
      return new AnkoleError('address-in-use', `${who} cannot listen on ${where}: another process does.`)
    case 'EACCES':
      return new AnkoleError('permission-denied', `${who} cannot listen on ${where}: this user may not use that port.`)
    case 'EADDRNOTAVAIL':
    case 'ENOTFOUND':
      return new AnkoleError('invalid-argument', `${who} cannot listen on ${where}: this machine has no such address.`)
    default:
      return undefined
  }
}

export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}
