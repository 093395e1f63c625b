package fleet

// Roles: who may read and write what, as commands for etcdctl.

import (
	"fmt"
	"strings"
)

// Roles are the commands that let these nodes, and an admin, do what they have to, and
// no more. A certificate's name is that of a user.
func Roles(nodes []string) string {
	var b strings.Builder
	say := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	say("# With ETCDCTL_API=3, --endpoints and certificates, once. etcd needs --client-cert-auth, and a certificate")
	say("# for each of these users, with its name as CN. Nodes read what is wanted, and write how they are.")
	say("etcdctl role add nlb-admin")
	say("etcdctl role grant-permission nlb-admin readwrite %s --prefix", root)
	say("etcdctl user add admin --no-password")
	say("etcdctl user grant-role admin nlb-admin")
	say("etcdctl role add nlb-node")
	for _, key := range []string{keyDesired, keyBlob} {
		say("etcdctl role grant-permission nlb-node read %s --prefix", key)
	}
	say("etcdctl role grant-permission nlb-node read %s", keyOut)
	if len(nodes) == 0 {
		say("# For each node: nlb fleet roles NODE...")
	}
	for _, n := range nodes {
		say("etcdctl role add nlb-node-%s", n)
		for _, key := range []string{keyNode, keyAlive} {
			say("etcdctl role grant-permission nlb-node-%s readwrite %s%s", n, key, n)
		}
		say("etcdctl user add %s --no-password", n)
		say("etcdctl user grant-role %s nlb-node", n)
		say("etcdctl user grant-role %s nlb-node-%s", n, n)
	}
	say("# root manages users and roles. Nobody can write without a certificate from here on.")
	say("etcdctl user add root --no-password")
	say("etcdctl user grant-role root root")
	say("etcdctl auth enable")
	return b.String()
}
