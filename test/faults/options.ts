// What run.mjs was asked for.

/** Of the load, of what the network loses, and of the faults where they are mixed. */
export const seed = Number(process.env['ANKOLE_FAULTS_SEED'] ?? 1)

/** Longer than CI has time for. */
export const longRun = process.env['ANKOLE_FAULTS_LONG'] === '1'

/** Times are compared with what is promised, which a machine that is busy with other things cannot keep. */
export const figures = process.env['ANKOLE_FAULTS_FIGURES'] === '1'
