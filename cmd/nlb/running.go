//go:build linux

package main

// What completion finds in the kernel.

import "nlb/nft"

// running are the names of the profiles in the kernel, with their services
// where they are wanted. Who may not look gets none.
func running(table string, services bool) []string {
	conn, err := dial()
	if err != nil {
		return nil
	}
	defer conn.Close()
	state, err := nft.Load(conn, table)
	if err != nil {
		return nil
	}
	var out []string
	for _, p := range state.Profiles {
		out = append(out, p.Name)
		for i := range p.Services {
			if services {
				out = append(out, p.Name+"/"+p.Services[i].Name)
			}
		}
	}
	return out
}
