/** What Workers under test need of workerd; Cloudflare's own types would replace those of the platform in all tests. */
declare module "cloudflare:sockets" {
  import type { Connection } from "effect-lifeline/cloudflare/CloudflareSocket"
  export const connect: (address: { readonly hostname: string; readonly port: number }) => Connection
}
