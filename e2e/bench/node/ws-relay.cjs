// A relay as people write it with the package ws: message by message, with back-pressure.
// Usage: node relay.cjs LIBRARY HOST PORT BACKEND
const { WebSocketServer, WebSocket } = require(process.argv[2]);
const http = require('http');

const [host, port, backend] = process.argv.slice(3);
const options = { perMessageDeflate: false, maxPayload: 64 * 1024 * 1024 };
const limit = 1024 * 1024; // bytes queued before the other side is paused
const server = new WebSocketServer({ noServer: true, ...options });

function forward(from, to) {
	from.on('message', (data, isBinary) => {
		to.send(data, { binary: isBinary }, () => {
			if (from.isPaused && to.bufferedAmount < limit) from.resume();
		});
		if (to.bufferedAmount >= limit) from.pause();
	});
	from.on('close', (code, reason) => {
		if (code >= 1000 && code !== 1005 && code !== 1006) to.close(code, reason);
		else to.terminate();
	});
	from.on('error', () => to.terminate());
}

http.createServer((_, answer) => answer.writeHead(426).end())
	.on('upgrade', (request, socket, head) => {
		const browser = new WebSocket(`ws://${backend}${request.url}`, options);
		browser.once('error', () => socket.destroy());
		browser.once('open', () => {
			server.handleUpgrade(request, socket, head, (client) => {
				forward(client, browser);
				forward(browser, client);
			});
		});
	})
	.listen(Number(port), host, 4096);
