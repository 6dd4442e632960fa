module github.com/portreeve/portreeve

go 1.26.0
