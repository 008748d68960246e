// A relay for containers of the original dialect as people write it with the package ws: one link,
// each message parsed, wrapped or unwrapped, and sent on.
// Usage: node v1-relay.cjs LIBRARY HOST PORT BACKEND
const { WebSocketServer, WebSocket } = require(process.argv[2]);
const http = require('http');

const [host, port, backend] = process.argv.slice(3);
const options = { perMessageDeflate: false, maxPayload: 100 * 1024 * 1024 };
const server = new WebSocketServer({ noServer: true, ...options });
const clients = new Map(); // by session

const link = new WebSocket(`ws://${backend}/internal/ws`, options);
link.on('message', (text) => {
	const message = JSON.parse(text);
	const client = clients.get(message.sessionId);
	if (!client) return;
	if (message.type === 'CDP_RESPONSE') client.send(JSON.stringify(message.data));
	else if (message.type === 'SESSION_READY') client.send(JSON.stringify({ type: 'session_ready', sessionId: message.sessionId }));
});
link.on('close', () => process.exit(1));
link.on('error', () => process.exit(1));

link.once('open', () => http.createServer((_, answer) => answer.writeHead(426).end())
	.on('upgrade', (request, socket, head) => server.handleUpgrade(request, socket, head, (client) => {
		const sessionId = request.url.split('/')[2];
		clients.set(sessionId, client);
		link.send(JSON.stringify({ type: 'CREATE_SESSION', sessionId, userId: 'bench', options: {} }));
		client.on('message', (text) => {
			const data = JSON.parse(text);
			link.send(JSON.stringify({ type: 'CLIENT_MESSAGE', sessionId, data }));
		});
		client.on('close', () => {
			clients.delete(sessionId);
			link.send(JSON.stringify({ type: 'DESTROY_SESSION', sessionId }));
		});
		client.on('error', () => client.terminate());
	}))
	.listen(Number(port), host, 4096));
