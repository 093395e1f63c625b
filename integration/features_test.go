package integration

// features are profiles that between them use every statement that nlb makes.
var features = map[string]string{
	"plain":            web + backends(8080, -1, -1, -1),
	"random by weight": web + "    scheduler: random\n" + backends(8080, 30, 10, 0),
	"sctp":             web + "    protocol: [tcp, udp, sctp]\n" + backends(8080, -1),
	"all hashes": `profile: hash
services:
  - name: all
    listen: ["203.0.113.10:80", "[2001:db8::10]:80"]
    protocol: [tcp, udp]
    scheduler: hash
    hash-by: [source-address, source-port, destination-address, destination-port, protocol]
    hash-seed: 4294967295
    backends: ["10.2.0.11", "10.2.0.12", "[fd02::11]", "[fd02::12]:99"]
  - {name: seed-0, listen: "203.0.113.11:80", scheduler: hash, hash-seed: 0, backends: ["10.2.0.11"]}
  - {name: port, listen: "203.0.113.12:80", scheduler: hash, hash-by: source-port, backends: ["10.2.0.11"]}
`,
	"ports": `profile: ports
services:
  - {name: a, listen: "203.0.113.10:80,443,8000-8010", backends: ["10.2.0.11:80"]}
  - {name: b, listen: "203.0.113.11:*", backends: ["10.2.0.11"]}
  - {name: c, listen: ["[2001:db8::1]:*", "[2001:db8::2]:1-65535"], protocol: udp, backends: ["fd02::11"]}
`,
	"snat": `profile: snat
services:
  - {name: none, listen: "203.0.113.10:80", snat: none, backends: ["10.2.0.11:80"]}
  - {name: vip, listen: ["203.0.113.11:80", "[2001:db8::1]:80"], snat: vip, backends: ["10.2.0.11:80", "[fd02::11]:80"]}
  - {name: one, listen: "203.0.113.12:80", snat: 192.0.2.1, backends: ["10.2.0.11:80"]}
  - {name: pool, listen: "[2001:db8::2]:80", snat: ["fd02::1", "fd02::2"], backends: ["[fd02::11]:80"]}
  - name: mixed
    listen: "203.0.113.13:80"
    backends: ["10.2.0.11:80", {address: "10.2.0.12:80", snat: vip}, {address: "10.2.0.13:80", snat: [192.0.2.1, 192.0.2.9], name: third}]
`,
	"empty": `profile: empty
services:
  - {name: reject, listen: "203.0.113.10:80", backends: []}
  - {name: drop, listen: "[2001:db8::1]:80", on-empty: drop, backends: [{address: "[fd02::11]:80", weight: 0}]}
`,
	"odd names": `profile: 9to5.x
services:
  - {name: "-", listen: "203.0.113.10:80", backends: ["10.2.0.11:80"]}
  - {name: "80", listen: "203.0.113.11:80", backends: ["10.2.0.11:80"]}
  - {name: aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggg, listen: "203.0.113.12:80", backends: [{address: "10.2.0.11:80", name: aaaaaaaaaabbbbbbbbbbccccccccccddddddddddeeeeeeeeeeffffffffffggg, weight: 1000}]}
`,
}
