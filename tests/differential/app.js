// An application on Node's own HTTP server: notes each request as Node reads it.
const crypto = require("node:crypto");
const fs = require("node:fs");
const http = require("node:http");

const [port, log] = process.argv.slice(2);
const note = (entry) => fs.appendFileSync(log, JSON.stringify(entry) + "\n");

const server = http.createServer((request, response) => {
    const hash = crypto.createHash("sha256");
    request.on("data", (piece) => hash.update(piece));
    request.on("end", () => {
        note({ id: request.headers["forebay-event-id"], sha256: hash.digest("hex") });
        response.end();
    });
});
server.on("clientError", (error, socket) => {
    if (error.code !== "ECONNRESET") note({ odd: String(error.code) });
    socket.destroy();
});
server.listen(Number(port), "127.0.0.1");
