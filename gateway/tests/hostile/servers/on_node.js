// Node, telling what it read: method, target, framing and body of each request, one line each.
"use strict";

const http = require("node:http");

const server = http.createServer((request, response) => {
  const body = [];
  request.on("data", (chunk) => body.push(chunk));
  request.on("end", () => {
    const headers = request.headers;
    const framing = "transfer-encoding" in headers ? "chunked" : "content-length" in headers ? "length" : "none";
    const line = [request.method, request.url, framing, Buffer.concat(body).toString("hex")];
    process.stdout.write(line.join("\t") + "\n", () => {
      response.writeHead(200, { "Content-Length": "2" });
      response.end("ok");
    });
  });
});
server.listen(0, "127.0.0.1", () => console.log(server.address().port));
// The test goes away by closing our standard input.
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
