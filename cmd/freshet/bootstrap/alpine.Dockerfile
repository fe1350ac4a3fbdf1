# A root of busybox alone.
FROM scratch AS made
COPY busybox /bin/busybox
SHELL ["/bin/busybox", "sh", "-ec"]
RUN <<EOF
for dir in dev etc home mnt opt proc root run srv sys tmp usr/bin usr/sbin usr/local/bin sbin lib var/log var/tmp; do /bin/busybox mkdir -p /$dir; done
/bin/busybox --install -s /bin
chmod 1777 /tmp /var/tmp
chmod 700 /root
printf 'root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/sbin/nologin\n' >/etc/passwd
printf 'root:x:0:root\nnobody:x:65534:\n' >/etc/group
printf 'ID=alpine\nNAME="busybox of Debian"\n' >/etc/os-release
EOF
FROM scratch
COPY --from=made / /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CMD ["/bin/sh"]
