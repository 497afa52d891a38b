// The common calls of the stock `openai` package for Node against a gateway, each as its documentation has it. Nothing but the base
// URL is ours. Prints one JSON object: what each call came to. tests/api/test_node_client.py starts it and says what that must be.

import { once } from "node:events";

import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: "unused", maxRetries: 0 });
const model = "scripted";
const asked = (content) => [{ role: "user", content }];
const found = {};

async function failure(promise) {
  try {
    await promise;
    return null;
  } catch (fault) {
    return { kind: fault.constructor.name, status: fault.status, code: fault.code, type: fault.type, param: fault.param };
  }
}

const whole = await client.chat.completions.create({ model, messages: asked("count 20"), max_tokens: 50, temperature: 0 });
found.whole = { text: whole.choices[0].message.content, finish: whole.choices[0].finish_reason, usage: whole.usage };

const stream = await client.chat.completions.create({
  model,
  messages: [{ role: "developer", content: "be brief" }, ...asked("count 30")],
  stream: true,
  stream_options: { include_usage: true },
});
found.stream = { text: "", chunks: 0, usage: null };
for await (const chunk of stream) {
  found.stream.text += chunk.choices[0]?.delta?.content ?? "";
  found.stream.chunks += 1;
  found.stream.usage = chunk.usage ?? found.stream.usage;
}

const runner = client.chat.completions.stream({ model, messages: asked("count 10"), logprobs: true });
found.runner = { text: await runner.finalContent(), logprobs: (await runner.finalChatCompletion()).choices[0].logprobs.content.length };

found.models = [];
for await (const one of client.models.list()) found.models.push(one.id);
found.model = (await client.models.retrieve(model)).object;

const response = await client.responses.create({ model, input: "count 5" });
const next = await client.responses.create({ model, input: "and now?", previous_response_id: response.id });
found.response = { text: response.output_text, status: response.status, next: next.output_text };
found.kept = (await client.responses.retrieve(response.id)).id === response.id;
await client.responses.delete(response.id);
found.forgotten = await failure(client.responses.retrieve(response.id));

found.events = { text: "", last: "" };
for await (const event of await client.responses.create({ model, input: "count 8", stream: true })) {
  if (event.type === "response.output_text.delta") found.events.text += event.delta;
  found.events.last = event.type;
}

found.unknown = await failure(client.chat.completions.create({ model: "no-such-model", messages: asked("hi") }));
found.refused = await failure(
  client.chat.completions.create({ model, messages: asked("hi"), n: 2 }),
);
found.wrong = await failure(client.chat.completions.create({ model, messages: asked("hi"), temperature: 9 }));

console.log("the next answer fails"); // and whoever started this says so to the engine, then answers with a line
await once(process.stdin, "data");
const retrying = client.withOptions({ maxRetries: 2 });
const { data, response: answer } = await retrying.chat.completions
  .create({ model, messages: asked("again") })
  .withResponse();
found.retried = { text: data.choices[0].message.content, id: answer.headers.get("x-request-id") !== null };

const controller = new AbortController();
const cut = await client.chat.completions.create(
  { model, messages: asked("count 2000"), max_tokens: 4000, stream: true },
  { signal: controller.signal },
);
found.aborted = { chunks: 0 };
for await (const _ of cut) {
  found.aborted.chunks += 1;
  if (found.aborted.chunks === 5) controller.abort();
}

console.log(JSON.stringify(found));
process.exit(0);
