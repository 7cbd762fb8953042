// What schemas are made of.
import { Type, type TProperties } from 'typebox'

/** Unknown fields are refused: a misspelt one would otherwise be a wish that nobody heard. */
export function Strict<P extends TProperties>(properties: P, options: object = {}) {
  return Type.Object(properties, { additionalProperties: false, ...options })
}

export const nullable = <T extends Parameters<typeof Type.Union>[0][number]>(type: T) => Type.Union([type, Type.Null()])

export const timeoutSecondsDefault = 30

export const ChapRequest = Strict(
  {
    user: Type.String({ description: 'What the initiator calls itself: 1 to 223 printable ASCII characters' }),
    secret: Type.String({ description: '12 to 64 printable ASCII characters' }),
    mutualUser: Type.Optional(Type.String({ description: 'What the target calls itself in turn' })),
    mutualSecret: Type.Optional(Type.String({ description: 'Another one than the secret' })),
  },
  { description: 'Who may log in by iSCSI; whoever reaches the portal if not given. No answer shows it' },
)

export const TimeoutSeconds = Type.Optional(
  Type.Number({
    minimum: 0,
    maximum: 600,
    description: `How long to wait until it is done; ${timeoutSecondsDefault} if not given. What was asked for stays asked for.`,
  }),
)
