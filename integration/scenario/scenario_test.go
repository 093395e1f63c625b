package scenario

// The scenario on namespaces, on machines that a configuration of ssh names,
// and against an nlb that does one thing wrong in each phase.

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"nlb/integration/netlab/netlabtest"
)

var sshConfig = flag.String("ssh-config", os.Getenv("NLB_SSH_CONFIG"),
	"play the scenario on the hosts client, lb and server of this OpenSSH configuration file")

const root = "../.."

// Programs under test, once for all tests.
var nlb, peer string

func TestMain(m *testing.M) {
	netlabtest.Enter()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if testing.Short() {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "nlb-scenario-")
	if err == nil {
		defer os.RemoveAll(dir)
		if nlb, err = Build(root, dir, "./cmd/nlb"); err == nil {
			peer, err = Build(root, dir, "./integration/scenario/peer")
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "FAIL:", err)
		return 1
	}
	return m.Run()
}

func namespaces(t *testing.T, nlb string) *Lab {
	t.Helper()
	w := netlabtest.NewWorld(t)
	folder := t.TempDir()
	boot, err := Boot(root, folder)
	netlabtest.Must(t, err)
	lab, err := Namespaces(w, nlb, peer, folder, boot)
	netlabtest.Must(t, err)
	return lab
}

// TestScenario is on namespaces, or on the three machines that -ssh-config
// names; see docs/lab.md.
func TestScenario(t *testing.T) {
	if *sshConfig == "" {
		t.Parallel()
		Play(t, namespaces(t, nlb))
		return
	}
	file, err := filepath.Abs(*sshConfig)
	if err != nil {
		t.Fatal(err)
	}
	c, err := Dial(t.Context(), Here, file)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	lab, err := c.Lab(t.Context(), peer)
	if err != nil {
		t.Fatal(err)
	}
	Play(t, lab)
}

// TestFaults has every phase fail, or two without -full: with an nlb that does one
// thing wrong. A phase that cannot fail shows nothing.
func TestFaults(t *testing.T) {
	t.Parallel()
	for phase, fault := range map[string]string{
		"apply":   `[ "$1" != apply ] || { echo "applied shop: 2 services, 7 backends (+9 ~0 -0), generation 1"; exit; }`,
		"balance": `[ "$1" != apply ] || sed -i '/11:8080/s/weight: 1/weight: 2/' "$2/shop.yaml"`,
		"drain":   `[ "$1" != apply ] || sed -i 's/weight: 0/weight: 1/' "$2/shop.yaml"`,
		"remove":  `[ "$1" != apply ] || grep -q '1[13]:8080", weight' "$2/shop.yaml" || exit 0`,
		"refuse":  `[ "$1" != apply ] || grep -q 'weight: 1' "$2/shop.yaml" || exit 0`,
		"flush":   `[ "$1" != flush ] || set -- flush`,
		"reboot":  `case "$*" in "apply /"*) NLB "$@" && rm "$2/shop.yaml"; exit;; esac`,
		"leave":   `[ "$1" != flush ] || { echo >>"$0.n"; [ $(wc -l <"$0.n") != 3 ] || { echo flushed shop; exit; }; }`,
	} {
		if !*netlabtest.Full && phase != "balance" && phase != "leave" {
			continue
		}
		t.Run(phase, func(t *testing.T) {
			t.Parallel()
			broken := filepath.Join(t.TempDir(), "nlb")
			script := fmt.Sprintf("#!/bin/sh\nNLB() { %s \"$@\"; }\n%s\nNLB \"$@\"\n", quote(nlb), fault)
			if err := os.WriteFile(broken, []byte(script), 0o700); err != nil {
				t.Fatal(err)
			}
			s, err := Open(t.Context(), namespaces(t, broken))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			for _, p := range Phases() {
				if p.Machines {
					continue
				}
				err := p.Play(t.Context(), s)
				switch {
				case err != nil && p.Name == phase:
					t.Log(err)
					return
				case err != nil:
					t.Fatalf("%s failed, want %s: %v", p.Name, phase, err)
				case p.Name == phase:
					t.Fatal("the fault was not seen")
				}
			}
			t.Fatal("no such phase")
		})
	}
}
