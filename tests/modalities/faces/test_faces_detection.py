import numpy as np
import pytest
from sharpstudent.core.errors import UserError
from sharpstudent.modalities.faces.crop import compute_landmark_box
from sharpstudent.modalities.faces.detect import FaceDetector
from sharpstudent.modalities.faces.landmarks import LandmarkMesh


@pytest.mark.parametrize("network", [FaceDetector, LandmarkMesh])
@pytest.mark.parametrize("content", [None, b"", b"not a model at all" * 100])
def test_a_missing_or_broken_model_file_is_a_clear_error(network, content, tmp_path):
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.onnx") as caught:
        network(path)
    assert "weights/README.md" in str(caught.value)


def test_the_detector_finds_the_one_face_of_each_photograph(detector, photos):
    for image, points in photos:
        faces = detector.detect(image)
        assert len(faces) == 1
        left, top, right, bottom = faces[0].box_xyxy
        assert ((points > (left, top)) & (points < (right, bottom))).all()
        assert 0.6 <= faces[0].score <= 1
        eye_distance = np.linalg.norm(points[0] - points[1])
        assert np.median(np.linalg.norm(faces[0].points - points, axis=1)) < 0.15 * eye_distance


@pytest.mark.parametrize("scale", [0.2, 0.4, 3.0])
def test_coordinates_are_in_the_pixels_of_a_small_or_large_image(scale, detector, photos):
    import cv2

    image = photos[0][0]
    expected = detector.detect(image)[0].box_xyxy
    found = detector.detect(cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA))
    np.testing.assert_allclose(found[0].box_xyxy / scale, expected, atol=12)


def test_a_face_that_fills_the_picture_is_found(detector, photos):
    for image, _ in photos[:6]:
        left, top, right, bottom = detector.detect(image)[0].box_xyxy.astype(int)
        tight = np.ascontiguousarray(image[max(top, 0) : bottom, max(left, 0) : right])
        assert len(detector.detect(tight)) == 1


def test_the_largest_face_comes_first_and_small_ones_are_dropped(detector, photos):
    import cv2

    large, small, tiny = photos[0][0], cv2.resize(photos[1][0], (256, 256)), cv2.resize(photos[2][0], (64, 64))
    board = np.full((512, 800, 3), 200, np.uint8)
    board[:, :512], board[:256, 530:786], board[400:464, 600:664] = large, small, tiny
    faces = detector.detect(board)
    assert len(faces) == 2
    assert faces[0].area > faces[1].area
    assert faces[0].box_xyxy[2] < 512 < faces[1].box_xyxy[0]


@pytest.mark.parametrize("shape", [(0, 10), (1, 1), (3, 900), (64, 64)])
def test_a_picture_without_a_face_gives_an_empty_list(shape, detector):
    assert detector.detect(np.full((*shape, 3), 127, np.uint8)) == []


def test_landmarks_lie_near_the_marked_points(detector, mesh, photos):
    errors = []
    for image, points in photos:
        found = mesh.locate_81(image, detector.detect(image)[0])
        five = np.array([found[36:42].mean(0), found[42:48].mean(0), found[30], found[48], found[54]])
        errors.append(np.linalg.norm(five - points, axis=1) / np.linalg.norm(points[0] - points[1]))
    assert np.median(errors) < 0.08
    assert np.max(errors) < 0.4


def test_the_81_points_are_ordered_as_on_a_face(detector, mesh, photos):
    for image, _ in photos[:8]:
        found = mesh.locate_81(image, detector.detect(image)[0])
        assert found.shape == (81, 2)
        assert found.dtype == np.float32
        assert found[0, 0] < found[36, 0] < found[45, 0] < found[16, 0]
        assert found[71, 1] < found[19, 1] < found[37, 1] < found[30, 1] < found[51, 1] < found[57, 1] < found[8, 1]
        assert found[77, 0] < found[75, 0] < found[71, 0] < found[74, 0] < found[78, 0]


def test_the_presence_score_separates_faces_from_other_pictures(detector, mesh, photos):
    image = photos[0][0]
    points, presence = mesh.locate(image, detector.detect(image)[0].box_xyxy)
    assert points.shape == (468, 2)
    assert presence > 0.9
    assert mesh.locate(np.zeros_like(image), np.array([100, 100, 300, 300]))[1] < 0.1


def test_a_turned_face_gets_the_turned_landmarks(detector, mesh, photos):
    import cv2

    image = photos[0][0]
    upright = mesh.locate_81(image, detector.detect(image)[0])
    turn = cv2.getRotationMatrix2D((256, 256), 25, 1.0)
    turned = cv2.warpAffine(image, turn, (512, 512), borderMode=cv2.BORDER_REPLICATE)
    found = mesh.locate_81(turned, detector.detect(turned)[0])
    expected = upright @ turn[:, :2].T + turn[:, 2]
    size = np.ptp(compute_landmark_box(upright)[[0, 2]])
    assert np.median(np.linalg.norm(found - expected, axis=1)) < 0.04 * size
