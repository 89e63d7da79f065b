// Says what the page's own check finds wrong with bodies, by name: the paths.

import { readFileSync } from "node:fs";

const { source, document, bodies } = JSON.parse(readFileSync(0, "utf8"));
const { Schemas, written } = await import(`data:text/javascript,${encodeURIComponent(readFileSync(source, "utf8"))}`);
const schemas = new Schemas(document);
const schema = { $ref: "#/components/schemas/ChatRequest" };
const found = bodies.map((body) => schemas.problems(schema, body).map(({ path }) => written(path)));
console.log(JSON.stringify(found));
