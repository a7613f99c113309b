/** The program's version; the addons carry the same and are refused otherwise. */
export const version = '0.1.0';
