export { installResolver, METHODS, type Method, type ResolverOptions, type ResolverReport, removeResolver } from './resolver.js';
export { type ResolverTarget, serverAddresses } from './target.js';
